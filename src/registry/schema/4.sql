-- How a followed file begins: with the marker it tells whether a log was cut and has grown again.
ALTER TABLE streams ADD COLUMN head_length INTEGER NOT NULL DEFAULT 0; -- 0: not known
ALTER TABLE streams ADD COLUMN head BLOB NOT NULL DEFAULT x'00000000000000000000000000000000'
    CHECK (length(head) = 16);
