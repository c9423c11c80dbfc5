-- By shape, the fewest digits and capitals that any of its keys has: what has fewer is not looked up.
-- Of the keys that are there already, nobody knows.
CREATE TABLE strong (
    alphabet TEXT NOT NULL,
    length   INTEGER NOT NULL CHECK (length > 0),
    least    INTEGER NOT NULL CHECK (least >= 0),
    PRIMARY KEY (alphabet, length)
) STRICT, WITHOUT ROWID;
INSERT INTO strong SELECT DISTINCT alphabet, length, 0 FROM shapes;
