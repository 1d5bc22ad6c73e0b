CREATE TABLE items (
    number INTEGER PRIMARY KEY,
    name   TEXT    NOT NULL,
    cents  INTEGER NOT NULL
) STRICT;
