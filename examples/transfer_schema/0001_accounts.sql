CREATE TABLE accounts (
    name  TEXT    NOT NULL PRIMARY KEY,
    cents INTEGER NOT NULL CHECK (cents >= 0)
) STRICT;
INSERT INTO accounts (name, cents) VALUES ('ann', 100), ('bob', 0), ('cay', 0);

CREATE TABLE bookings (
    number INTEGER PRIMARY KEY,
    debit  TEXT    NOT NULL REFERENCES accounts (name),
    credit TEXT    NOT NULL REFERENCES accounts (name),
    cents  INTEGER NOT NULL CHECK (cents > 0)
) STRICT;
