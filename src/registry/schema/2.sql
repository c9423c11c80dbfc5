-- The model of accounts, identities and rights, after IBM Cloud's; candidates that are remembered.
-- Foreign keys are off while this runs, and checked before it is committed.

CREATE UNIQUE INDEX accounts_by_name ON accounts (name COLLATE NOCASE);
ALTER TABLE accounts ADD COLUMN owner_id TEXT REFERENCES identities (id);
ALTER TABLE accounts ADD COLUMN restrict_user_keys INTEGER NOT NULL DEFAULT 0
    CHECK (restrict_user_keys IN (0, 1));
ALTER TABLE accounts ADD COLUMN restrict_service_keys INTEGER NOT NULL DEFAULT 0
    CHECK (restrict_service_keys IN (0, 1));
ALTER TABLE accounts ADD COLUMN version INTEGER NOT NULL DEFAULT 1;

-- A service ID need not have a mail address; whoever is deleted keeps its row for its tombstones.
CREATE TABLE identities_new (
    id          TEXT PRIMARY KEY,
    account_id  TEXT NOT NULL REFERENCES accounts (id),
    kind        TEXT NOT NULL CHECK (kind IN ('user', 'functional-id', 'service-id')),
    name        TEXT NOT NULL COLLATE NOCASE CHECK (name <> ''),
    email       TEXT COLLATE NOCASE,
    contact     TEXT COLLATE NOCASE,                     -- mail address of those who look after it
    description TEXT NOT NULL DEFAULT '',
    federated   INTEGER NOT NULL DEFAULT 0 CHECK (federated IN (0, 1)),
    manager_id  TEXT REFERENCES identities (id),         -- who manages a functional or service ID
    parent_id   TEXT REFERENCES identities (id),         -- the user above, in the classic hierarchy
    os_user     TEXT,                                    -- user of the operating system who may be it
    created_at  INTEGER NOT NULL,
    created_by  TEXT NOT NULL,
    modified_at INTEGER NOT NULL,
    modified_by TEXT NOT NULL,
    deleted_at  INTEGER,
    version     INTEGER NOT NULL DEFAULT 1,
    CHECK (kind = 'user' OR (federated = 0 AND parent_id IS NULL)),
    CHECK (kind <> 'user' OR manager_id IS NULL)
) STRICT;

-- What an identity may do beyond managing its own keys.
CREATE TABLE grants (
    identity_id TEXT NOT NULL REFERENCES identities (id),
    word        TEXT NOT NULL CHECK (word IN ('administrator', 'issue', 'create')),
    granted_at  INTEGER NOT NULL,
    granted_by  TEXT NOT NULL,
    PRIMARY KEY (identity_id, word)
) STRICT, WITHOUT ROWID;
INSERT INTO grants
    SELECT id, 'administrator', created_at, 'leakwarden' FROM identities WHERE is_admin = 1;
UPDATE accounts SET owner_id =
    (SELECT id FROM identities i WHERE i.account_id = accounts.id AND is_admin = 1
     ORDER BY created_at, id LIMIT 1);

INSERT INTO identities_new (id, account_id, kind, name, email, created_at, created_by, modified_at,
        modified_by)
    SELECT id, account_id, kind, name, email, created_at, '', created_at, '' FROM identities;
DROP TABLE identities;
ALTER TABLE identities_new RENAME TO identities;
CREATE UNIQUE INDEX identities_by_name ON identities (account_id, name) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX identities_by_email ON identities (account_id, email) WHERE deleted_at IS NULL;
CREATE INDEX identities_by_manager ON identities (manager_id);
CREATE INDEX identities_by_parent ON identities (parent_id);
CREATE INDEX identities_by_os_user ON identities (os_user);

CREATE TABLE identity_groups (
    identity_id TEXT NOT NULL REFERENCES identities (id),
    name        TEXT NOT NULL COLLATE NOCASE,
    PRIMARY KEY (identity_id, name)
) STRICT, WITHOUT ROWID;

-- One row for each import that named its source: what it did not name can be pruned.
CREATE TABLE imports (
    id         INTEGER PRIMARY KEY,
    account_id TEXT NOT NULL REFERENCES accounts (id),
    origin     TEXT NOT NULL,
    at         INTEGER NOT NULL,
    actor      TEXT NOT NULL
) STRICT;

ALTER TABLE keys ADD COLUMN service TEXT NOT NULL DEFAULT '';      -- that made a service-specific one
ALTER TABLE keys ADD COLUMN executor TEXT NOT NULL DEFAULT 'registry';
ALTER TABLE keys ADD COLUMN origin TEXT NOT NULL DEFAULT '';       -- the source that an import named
ALTER TABLE keys ADD COLUMN remote_id TEXT;                        -- its id there
ALTER TABLE keys ADD COLUMN import_id INTEGER REFERENCES imports (id); -- the last one that named it
ALTER TABLE keys ADD COLUMN replaces TEXT REFERENCES keys (id);    -- the key that it succeeds
ALTER TABLE keys ADD COLUMN last_used_at INTEGER;
ALTER TABLE keys ADD COLUMN use_count INTEGER NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX keys_by_remote_id ON keys (account_id, origin, remote_id)
    WHERE remote_id IS NOT NULL AND state <> 'deleted';
-- Classic infrastructure keys have no lock, no expiry, and cannot be disabled.
UPDATE keys SET locked = 0, expires_at = NULL,
        leak_action = CASE leak_action WHEN 'disable' THEN 'none' ELSE leak_action END
    WHERE kind = 'classic-infrastructure';

-- A home is for one key, for all keys of an identity, or for all of an account.
CREATE TABLE homes_new (
    id          INTEGER PRIMARY KEY,
    account_id  TEXT NOT NULL REFERENCES accounts (id),
    key_id      TEXT REFERENCES keys (id),
    identity_id TEXT REFERENCES identities (id),
    host        TEXT NOT NULL DEFAULT '',                 -- empty: every host
    glob        TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    created_by  TEXT NOT NULL,
    CHECK (key_id IS NULL OR identity_id IS NULL)
) STRICT;
INSERT INTO homes_new (account_id, key_id, glob, created_at, created_by)
    SELECT k.account_id, h.key_id, h.glob, h.created_at, h.created_by
    FROM homes h JOIN keys k ON k.id = h.key_id;
DROP TABLE homes;
ALTER TABLE homes_new RENAME TO homes;
CREATE UNIQUE INDEX homes_once
    ON homes (account_id, coalesce(key_id, ''), coalesce(identity_id, ''), host, glob);
CREATE INDEX homes_by_key ON homes (key_id);
CREATE INDEX homes_by_identity ON homes (identity_id);

-- The history of a key is what the audit log says of it.
CREATE INDEX audit_by_target ON audit (target);

-- Candidates of rules that nobody owned when they were seen. Bounded; what had to go is counted.
CREATE TABLE remembered (
    id             INTEGER PRIMARY KEY,
    identity       BLOB NOT NULL UNIQUE CHECK (length(identity) = 32), -- host, stream, offset, digest
    digest         BLOB NOT NULL CHECK (length(digest) = 32),
    checked        INTEGER NOT NULL CHECK (checked IN (0, 1)),         -- its check digits are right
    source         TEXT NOT NULL,
    stream         TEXT NOT NULL,
    path           TEXT NOT NULL,
    line           INTEGER NOT NULL,
    "column"       INTEGER NOT NULL,
    offset         INTEGER NOT NULL,
    host           TEXT NOT NULL,
    seen_at        INTEGER NOT NULL,
    world_readable INTEGER NOT NULL CHECK (world_readable IN (0, 1))
) STRICT;
CREATE INDEX remembered_by_digest ON remembered (digest);
CREATE INDEX remembered_by_age ON remembered (checked, id);
CREATE TABLE memory (kept INTEGER NOT NULL, evicted INTEGER NOT NULL) STRICT;
INSERT INTO memory (kept, evicted) VALUES (0, 0);
CREATE TRIGGER count_remembered AFTER INSERT ON remembered
    BEGIN UPDATE memory SET kept = kept + 1; END;
CREATE TRIGGER count_forgotten AFTER DELETE ON remembered
    BEGIN UPDATE memory SET kept = kept - 1; END;
