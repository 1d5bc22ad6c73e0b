-- Damage made visible: what the journal holds can be held against what was written.
--
-- sums  for each run and each kind of its rows: how many there are, and the XOR of their checksums.
--
-- The checksums of what is there already are computed by the first worker that opens the journal after this: SQLite has no
-- function for it. `durable_meta` notes which columns were summed.

-- Of the row itself.
ALTER TABLE durable_entries ADD COLUMN checksum INTEGER;

-- No reference to the run: what is left behind by a run that vanished tells of it.
CREATE TABLE durable_sums (
    run      INTEGER NOT NULL,
    -- Which rows of the run: a word that the code gives them.
    part     TEXT    NOT NULL CHECK (part <> ''),
    number   INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (run, part)
) STRICT, WITHOUT ROWID;

-- The number of the worker's last commit, over all workers: what the mark beside the journal is compared with.
ALTER TABLE durable_workers ADD COLUMN latest INTEGER NOT NULL DEFAULT 0 CHECK (latest >= 0);
-- The last commit of all workers that have signed off or were struck off.
ALTER TABLE durable_ticks ADD COLUMN commits INTEGER NOT NULL DEFAULT 0 CHECK (commits >= 0);

-- Whose commit it was: the journal's identity, which stands in `durable_meta`. These two rows are written all the time, and so
-- tell of pages that came from another journal.
ALTER TABLE durable_workers ADD COLUMN journal TEXT NOT NULL DEFAULT '';
ALTER TABLE durable_ticks ADD COLUMN journal TEXT NOT NULL DEFAULT '';
