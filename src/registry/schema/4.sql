-- How a followed file begins: with the marker it tells whether a log was cut and has grown again.
ALTER TABLE streams ADD COLUMN head_length INTEGER NOT NULL DEFAULT 0; -- 0: not known
ALTER TABLE streams ADD COLUMN head BLOB NOT NULL DEFAULT x'00000000000000000000000000000000'
    CHECK (length(head) = 16);
-- The CRC-32 of the first bytes, so many: what a copy must hold to be one.
ALTER TABLE streams ADD COLUMN summed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE streams ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
