-- One file for everything that must change together: keys, incidents, outbox, offsets.
-- Times are milliseconds since 1970, UTC. No column ever holds a plain key.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
-- pepper_check: recognises its own pepper; fingerprint_salt: for findings.

CREATE TABLE accounts (
    id                        TEXT PRIMARY KEY,
    name                      TEXT NOT NULL,
    key_prefix                TEXT NOT NULL DEFAULT 'lw',
    max_keys_per_identity     INTEGER NOT NULL DEFAULT 20 CHECK (max_keys_per_identity > 0),
    created_at                INTEGER NOT NULL
) STRICT;

CREATE TABLE identities (
    id          TEXT PRIMARY KEY,
    account_id  TEXT NOT NULL REFERENCES accounts (id),
    kind        TEXT NOT NULL CHECK (kind IN ('user', 'functional-id', 'service-id')),
    email       TEXT NOT NULL COLLATE NOCASE,
    name        TEXT NOT NULL,
    is_admin    INTEGER NOT NULL DEFAULT 0 CHECK (is_admin IN (0, 1)),
    created_at  INTEGER NOT NULL,
    UNIQUE (account_id, email)
) STRICT;

CREATE TABLE keys (
    seq            INTEGER PRIMARY KEY,               -- grows; the in-memory filter follows it
    id             TEXT NOT NULL UNIQUE,              -- ApiKey-<uuid>
    account_id     TEXT NOT NULL REFERENCES accounts (id),
    identity_id    TEXT NOT NULL REFERENCES identities (id),
    kind           TEXT NOT NULL
                   CHECK (kind IN ('user', 'service-id', 'service-specific', 'classic-infrastructure')),
    class          TEXT NOT NULL DEFAULT 'live' CHECK (class IN ('live', 'test', 'publishable')),
    name           TEXT NOT NULL,
    description    TEXT NOT NULL DEFAULT '',
    state          TEXT NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'disabled', 'deleted')),
    locked         INTEGER NOT NULL DEFAULT 0 CHECK (locked IN (0, 1)),
    leak_action    TEXT NOT NULL CHECK (leak_action IN ('none', 'disable', 'delete')),
    hint           TEXT NOT NULL,
    digest         BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    pepper_version INTEGER NOT NULL DEFAULT 1,
    tag            INTEGER,                           -- NULL: only a SHA-256 is known
    export_tag     INTEGER,
    alphabet       TEXT NOT NULL,                     -- the shape: alphabet and length
    length         INTEGER NOT NULL CHECK (length > 0),
    source         TEXT NOT NULL,                     -- created, registered, import
    expires_at     INTEGER,
    created_at     INTEGER NOT NULL,
    created_by     TEXT NOT NULL,
    modified_at    INTEGER NOT NULL,
    modified_by    TEXT NOT NULL,
    leaked_at      INTEGER,
    version        INTEGER NOT NULL DEFAULT 1
) STRICT;
CREATE INDEX keys_by_tag ON keys (tag);
CREATE INDEX keys_by_name ON keys (name);
CREATE INDEX keys_by_identity ON keys (identity_id);

-- How many keys are no tombstones: every scan says so first, and counting them takes long.
CREATE TABLE totals (live INTEGER NOT NULL) STRICT;
INSERT INTO totals (live) VALUES (0);
CREATE TRIGGER count_key_in AFTER INSERT ON keys WHEN new.state <> 'deleted'
    BEGIN UPDATE totals SET live = live + 1; END;
CREATE TRIGGER count_key_out AFTER UPDATE OF state ON keys
    WHEN old.state <> 'deleted' AND new.state = 'deleted'
    BEGIN UPDATE totals SET live = live - 1; END;

-- The shapes of all keys, so that a scan need not read the keys.
CREATE TABLE shapes (
    alphabet TEXT NOT NULL,
    length   INTEGER NOT NULL,
    untagged INTEGER NOT NULL CHECK (untagged IN (0, 1)),
    PRIMARY KEY (alphabet, length, untagged)
) STRICT, WITHOUT ROWID;

-- Where a key is meant to be.
CREATE TABLE homes (
    key_id     TEXT NOT NULL REFERENCES keys (id),
    glob       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    PRIMARY KEY (key_id, glob)
) STRICT, WITHOUT ROWID;

-- Append-only; each row's hash covers the row before it.
CREATE TABLE audit (
    seq    INTEGER PRIMARY KEY,
    at     INTEGER NOT NULL,
    actor  TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    before TEXT NOT NULL,
    after  TEXT NOT NULL,
    reason TEXT NOT NULL,
    hash   BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
CREATE TRIGGER audit_is_append_only_u BEFORE UPDATE ON audit
    BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_is_append_only_d BEFORE DELETE ON audit
    BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END;

CREATE TABLE incidents (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    key_id      TEXT NOT NULL REFERENCES keys (id),
    state       TEXT NOT NULL CHECK (state IN ('open', 'resolved')),
    observed    INTEGER NOT NULL CHECK (observed IN (0, 1)), -- opened while only observing
    first_seen  INTEGER NOT NULL,
    last_seen   INTEGER NOT NULL,
    count       INTEGER NOT NULL DEFAULT 0,
    resolved_at INTEGER,
    resolution  TEXT
) STRICT;
CREATE UNIQUE INDEX one_open_incident_per_key ON incidents (key_id) WHERE state = 'open';

CREATE TABLE sightings (
    id          INTEGER PRIMARY KEY,
    identity    BLOB NOT NULL UNIQUE CHECK (length(identity) = 32), -- host, stream, offset, key
    incident_id INTEGER NOT NULL REFERENCES incidents (id),
    source      TEXT NOT NULL,
    stream      TEXT NOT NULL,
    path        TEXT NOT NULL,
    line        INTEGER NOT NULL,
    "column"    INTEGER NOT NULL,
    host        TEXT NOT NULL,
    seen_at     INTEGER NOT NULL
) STRICT;
CREATE INDEX sightings_by_incident ON sightings (incident_id);
CREATE INDEX sightings_by_stream ON sightings (stream, seen_at);

-- The outbox, first half: what is to be done to a key. At most once per incident and kind.
CREATE TABLE actions (
    id          INTEGER PRIMARY KEY,
    incident_id INTEGER NOT NULL REFERENCES incidents (id),
    kind        TEXT NOT NULL CHECK (kind IN ('disable', 'delete')),
    state       TEXT NOT NULL CHECK (state IN ('due', 'held', 'done', 'failed')),
    why         TEXT NOT NULL DEFAULT '',             -- of a hold, a failure, an outcome
    due_at      INTEGER NOT NULL,
    approved    INTEGER NOT NULL DEFAULT 0 CHECK (approved IN (0, 1)),
    attempts    INTEGER NOT NULL DEFAULT 0,
    created_at  INTEGER NOT NULL,
    finished_at INTEGER,
    UNIQUE (incident_id, kind)
) STRICT;
CREATE INDEX actions_due ON actions (state, due_at);

-- The outbox, second half: who is to be told.
CREATE TABLE notices (
    id          INTEGER PRIMARY KEY,
    incident_id INTEGER NOT NULL REFERENCES incidents (id),
    kind        TEXT NOT NULL CHECK (kind IN ('leak', 'held', 'failed')),
    recipient   TEXT NOT NULL COLLATE NOCASE,         -- mail address
    role        TEXT NOT NULL CHECK (role IN ('owner', 'admin')),
    message_id  TEXT NOT NULL UNIQUE,
    state       TEXT NOT NULL CHECK (state IN ('due', 'sent', 'failed')),
    why         TEXT NOT NULL DEFAULT '',
    due_at      INTEGER NOT NULL,
    attempts    INTEGER NOT NULL DEFAULT 0,
    in_doubt    INTEGER NOT NULL DEFAULT 0,           -- attempts that may have delivered
    created_at  INTEGER NOT NULL,
    finished_at INTEGER,
    UNIQUE (incident_id, kind, recipient)
) STRICT;
CREATE INDEX notices_due ON notices (state, due_at);

CREATE TABLE timeline (
    id          INTEGER PRIMARY KEY,
    incident_id INTEGER NOT NULL REFERENCES incidents (id),
    at          INTEGER NOT NULL,
    what        TEXT NOT NULL
) STRICT;
CREATE INDEX timeline_by_incident ON timeline (incident_id);

-- Watches that were started before: what is new to them since is read from its beginning.
CREATE TABLE watches (
    name       TEXT PRIMARY KEY,
    started_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- How far each stream is read. Written with the sightings found before.
CREATE TABLE streams (
    watch          TEXT NOT NULL,
    file           BLOB NOT NULL CHECK (length(file) = 32), -- hash of the path: it may hold a key
    stream         TEXT NOT NULL,
    dev            INTEGER NOT NULL,
    ino            INTEGER NOT NULL,
    size           INTEGER NOT NULL,
    changed_ns     INTEGER NOT NULL,
    world_readable INTEGER NOT NULL,
    position       INTEGER NOT NULL,
    lines          INTEGER NOT NULL,
    marker         BLOB NOT NULL CHECK (length(marker) = 16),
    PRIMARY KEY (watch, file)
) STRICT, WITHOUT ROWID;
