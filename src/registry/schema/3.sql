-- Commits of what was seen in git; watches that read again what they read before.

ALTER TABLE sightings ADD COLUMN "commit" TEXT;   -- in git: the one that brought it
ALTER TABLE remembered ADD COLUMN "commit" TEXT;

-- Keys that were made elsewhere and that no rule knows: whoever read before may have read them.
CREATE TABLE strangers (count INTEGER NOT NULL) STRICT;
INSERT INTO strangers (count) VALUES (0);

-- How many of them there were when each watch began to read all that it watches.
CREATE TABLE read_for (
    watch     TEXT PRIMARY KEY,
    strangers INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- With it, SQLite kept a copy of each page that a row of an import touched. The registry counts.
DROP TRIGGER count_key_in;

-- Whether a key has a successor is asked when it gets another one.
CREATE INDEX keys_by_replaced ON keys (replaces) WHERE replaces IS NOT NULL;
