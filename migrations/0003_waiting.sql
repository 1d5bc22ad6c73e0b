-- What runs wait for besides time: messages, answers, other runs; and what people ask of them.
--
-- signals    one row for each message to a run, kept in order until it is taken, and as long as the run afterwards.
-- questions  one row for each question that a run has asked at a suspend point.
-- early      answers that came before their question, kept in order.
-- ticks      one row: how many commits have changed a run. Orders changes over all processes.

CREATE TABLE signals (
    run      INTEGER NOT NULL REFERENCES runs (no) ON DELETE CASCADE,
    -- 1, 2, 3 … in its run: the order in which messages were stored.
    no       INTEGER NOT NULL CHECK (no > 0),
    name     TEXT    NOT NULL CHECK (name <> ''),
    sent_at  INTEGER NOT NULL,
    -- A second message with the same value is the same message.
    dedupe   TEXT,
    -- The key of the entry that took it.
    taken_by TEXT,
    -- Why it was set aside: it does not fit its type.
    error    BLOB,
    payload  BLOB    NOT NULL,
    PRIMARY KEY (run, no),
    CHECK (taken_by IS NULL OR error IS NULL)
) STRICT, WITHOUT ROWID;

-- Makes redelivery harmless.
CREATE UNIQUE INDEX signals_once ON signals (run, dedupe) WHERE dedupe IS NOT NULL;
-- Serves `suspend`, `mail` and `news`: the few messages that wait, among however many that were taken.
CREATE INDEX signals_waiting ON signals (run, name) WHERE taken_by IS NULL AND error IS NULL;

CREATE TABLE questions (
    -- The order in which they were asked.
    no          INTEGER PRIMARY KEY,
    run         INTEGER NOT NULL REFERENCES runs (no) ON DELETE CASCADE,
    -- The key of its wait.
    key         TEXT    NOT NULL CHECK (key <> ''),
    name        TEXT    NOT NULL CHECK (name <> ''),
    asked_at    INTEGER NOT NULL,
    -- An answer after this comes too late.
    deadline_at INTEGER,
    -- The JSON schema of the answer, as JSON.
    schema      TEXT    NOT NULL,
    answered_at INTEGER,
    answered_by TEXT,
    -- Tells a sender that repeats itself from a second one.
    dedupe      TEXT,
    -- When it was over without an answer.
    closed_at   INTEGER,
    payload     BLOB    NOT NULL,
    answer      BLOB,
    -- Why the last answer was taken away again: it did not fit its type.
    error       BLOB,
    -- A click that carries the key never answers the next question.
    UNIQUE (run, key),
    CHECK ((answer IS NULL) = (answered_at IS NULL) AND (answer IS NULL) = (answered_by IS NULL)),
    CHECK (answer IS NULL OR closed_at IS NULL)
) STRICT;

-- Makes a repeated answer harmless.
CREATE UNIQUE INDEX questions_once ON questions (run, dedupe) WHERE dedupe IS NOT NULL;
-- Serves the list of open questions, over all runs.
CREATE INDEX questions_open ON questions (asked_at, run, key) WHERE answer IS NULL AND closed_at IS NULL;

CREATE TABLE early (
    run     INTEGER NOT NULL REFERENCES runs (no) ON DELETE CASCADE,
    no      INTEGER NOT NULL CHECK (no > 0),
    name    TEXT    NOT NULL CHECK (name <> ''),
    sent_at INTEGER NOT NULL,
    sent_by TEXT    NOT NULL,
    dedupe  TEXT,
    payload BLOB    NOT NULL,
    PRIMARY KEY (run, no)
) STRICT, WITHOUT ROWID;

CREATE TABLE ticks (
    one  INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    tick INTEGER NOT NULL CHECK (tick >= 0)
) STRICT;
INSERT INTO ticks (one, tick) VALUES (1, 0);

-- The id of the run whose end is waited for.
ALTER TABLE waits ADD COLUMN target TEXT;
-- Whether that run has ended. Kept here, so that a run with ten thousand children need not look at each to come to rest.
ALTER TABLE waits ADD COLUMN over INTEGER NOT NULL DEFAULT 0
    CHECK (over IN (0, 1))
    CHECK (over = 0 OR target IS NOT NULL);

-- Serves the end of a run: who waits for it.
CREATE INDEX waits_for_runs ON waits (target) WHERE target IS NOT NULL;
-- Serves `suspend` and `news`: the waits for runs that have ended.
CREATE INDEX waits_over ON waits (run) WHERE over = 1;
-- Serves `suspend` and `signal`: the waits for messages and answers, among however many for other things.
CREATE INDEX waits_for_mail ON waits (run, kind, name) WHERE kind = 'signal' OR kind = 'question';

-- The run whose body started it. A run that is replaced leaves its children behind.
ALTER TABLE runs ADD COLUMN parent INTEGER REFERENCES runs (no) ON DELETE SET NULL;
-- The key of the entry under which that body started it.
ALTER TABLE runs ADD COLUMN parent_key TEXT;
-- What is asked of the parent is not asked of a detached run.
ALTER TABLE runs ADD COLUMN detached INTEGER NOT NULL DEFAULT 0 CHECK (detached IN (0, 1));
-- The deadline is the parent's, which was the nearer one: at its end it leaves no letter of its own.
ALTER TABLE runs ADD COLUMN deadline_inherited INTEGER NOT NULL DEFAULT 0
    CHECK (deadline_inherited IN (0, 1))
    CHECK (deadline_inherited = 0 OR deadline_at IS NOT NULL);
-- Who asked it to pause; it is paused once nothing is in flight.
ALTER TABLE runs ADD COLUMN pause_at INTEGER;
ALTER TABLE runs ADD COLUMN pause_reason TEXT;
ALTER TABLE runs ADD COLUMN pause_by TEXT
    CHECK ((pause_at IS NULL) = (pause_reason IS NULL) AND (pause_at IS NULL) = (pause_by IS NULL))
    CHECK (state <> 'paused' OR pause_at IS NOT NULL)
    CHECK (pause_at IS NULL OR state IN ('running', 'paused'))
    -- Cancel beats pause.
    CHECK (pause_at IS NULL OR cancel_at IS NULL);
-- What the body last said of itself.
ALTER TABLE runs ADD COLUMN status TEXT;
ALTER TABLE runs ADD COLUMN progress_done INTEGER;
ALTER TABLE runs ADD COLUMN progress_total INTEGER CHECK ((progress_done IS NULL) = (progress_total IS NULL));
-- The tick of its last change.
ALTER TABLE runs ADD COLUMN changed INTEGER NOT NULL DEFAULT 0;

-- Serves what is asked of a run and its descendants.
CREATE INDEX runs_children ON runs (parent) WHERE parent IS NOT NULL;
-- Serves watchers: what changed since they looked.
CREATE INDEX runs_by_change ON runs (changed);
-- Serves `claim` and `next_due`, as `runs_due` does: paused runs are due at their deadline.
CREATE INDEX runs_paused_due ON runs (workflow, due_at) WHERE state = 'paused' AND due_at IS NOT NULL;
