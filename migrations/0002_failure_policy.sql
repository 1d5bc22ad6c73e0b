-- What failures leave behind: attempts that are counted over a crash, and dead letters that a person can act on.
--
-- intents   one row for each at-most-once step that was about to begin.
-- attempts  one row for each failed attempt. What an attempt that ended the step gave stands in `entries`.

CREATE TABLE attempts (
    run        INTEGER NOT NULL REFERENCES runs (no) ON DELETE CASCADE,
    key        TEXT    NOT NULL CHECK (key <> ''),
    -- Counted from 1.
    number     INTEGER NOT NULL CHECK (number > 0),
    started_at INTEGER NOT NULL,
    ended_at   INTEGER NOT NULL,
    -- When the next attempt may begin; NULL after the last.
    next_at    INTEGER,
    error      BLOB    NOT NULL,
    PRIMARY KEY (run, key, number)
) STRICT, WITHOUT ROWID;

-- What an at-most-once step leaves before it begins: found without an outcome, it may or may not have had its effect.
CREATE TABLE intents (
    run    INTEGER NOT NULL REFERENCES runs (no) ON DELETE CASCADE,
    key    TEXT    NOT NULL CHECK (key <> ''),
    name   TEXT    NOT NULL,
    digest BLOB    NOT NULL,
    asked  INTEGER NOT NULL CHECK (asked >= 0),
    at     INTEGER NOT NULL,
    PRIMARY KEY (run, key)
) STRICT, WITHOUT ROWID;

-- Who decided the outcome, where a person did because nobody could know it.
ALTER TABLE entries ADD COLUMN decided_by TEXT;
-- The keys of the failed steps that are found in the error of a failed run: what `resume` tries again. A JSON array.
ALTER TABLE runs ADD COLUMN failed_keys TEXT NOT NULL DEFAULT '[]';
-- When a person marked the dead letter as seen to. It changes no state.
ALTER TABLE runs ADD COLUMN discarded_at INTEGER;
-- When the run must have ended, and how long it was given: `resume` gives it as long again if that was why it failed.
ALTER TABLE runs ADD COLUMN deadline_at INTEGER;
ALTER TABLE runs ADD COLUMN deadline_length INTEGER CHECK ((deadline_length IS NULL) = (deadline_at IS NULL));
-- Whoever drove it last left it in the middle: a step that is not recorded may have begun.
ALTER TABLE runs ADD COLUMN interrupted INTEGER NOT NULL DEFAULT 0 CHECK (interrupted IN (0, 1));

-- Serves `dead_letters`: the few that nobody has seen to, among however many runs.
CREATE INDEX runs_letters ON runs (no) WHERE state IN ('failed', 'parked') AND discarded_at IS NULL;
