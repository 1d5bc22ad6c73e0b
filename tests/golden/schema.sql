-- application_id 0x44755271, user_version 6

CREATE TABLE "durable_attempts" (
    run        INTEGER NOT NULL REFERENCES "durable_runs" (no) ON DELETE CASCADE,
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

CREATE TABLE "durable_early" (
    run     INTEGER NOT NULL REFERENCES "durable_runs" (no) ON DELETE CASCADE,
    no      INTEGER NOT NULL CHECK (no > 0),
    name    TEXT    NOT NULL CHECK (name <> ''),
    sent_at INTEGER NOT NULL,
    sent_by TEXT    NOT NULL,
    dedupe  TEXT,
    payload BLOB    NOT NULL,
    PRIMARY KEY (run, no)
) STRICT, WITHOUT ROWID;

CREATE TABLE "durable_entries" (
    run        INTEGER NOT NULL REFERENCES "durable_runs" (no) ON DELETE CASCADE,
    key        TEXT    NOT NULL CHECK (key <> ''),
    -- The place in the run's one order of outcomes.
    seq        INTEGER NOT NULL CHECK (seq > 0),
    kind       TEXT    NOT NULL CHECK (kind <> ''),
    name       TEXT    NOT NULL,
    digest     BLOB    NOT NULL,
    outcome    TEXT    NOT NULL CHECK (outcome <> ''),
    -- How many entries the body had been given when it made the call.
    asked      INTEGER NOT NULL CHECK (asked >= 0),
    started_at INTEGER NOT NULL,
    recorded_at INTEGER NOT NULL,
    attempts   INTEGER NOT NULL CHECK (attempts >= 0),
    -- A person accepted that the code no longer makes this call.
    removed    INTEGER NOT NULL DEFAULT 0 CHECK (removed IN (0, 1)),
    payload    BLOB    NOT NULL, decided_by TEXT, checksum INTEGER,
    -- The key alone makes a second outcome impossible.
    PRIMARY KEY (run, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE "durable_intents" (
    run    INTEGER NOT NULL REFERENCES "durable_runs" (no) ON DELETE CASCADE,
    key    TEXT    NOT NULL CHECK (key <> ''),
    name   TEXT    NOT NULL,
    digest BLOB    NOT NULL,
    asked  INTEGER NOT NULL CHECK (asked >= 0),
    at     INTEGER NOT NULL,
    PRIMARY KEY (run, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE "durable_meta" (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE "durable_questions" (
    -- The order in which they were asked.
    no          INTEGER PRIMARY KEY,
    run         INTEGER NOT NULL REFERENCES "durable_runs" (no) ON DELETE CASCADE,
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

CREATE TABLE "durable_run_tags" (
    run   INTEGER NOT NULL REFERENCES "durable_runs" (no) ON DELETE CASCADE,
    name  TEXT    NOT NULL CHECK (name <> ''),
    value TEXT    NOT NULL,
    PRIMARY KEY (run, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE "durable_runs" (
    -- AUTOINCREMENT: what is left of a replaced run never meets its successor.
    no             INTEGER PRIMARY KEY AUTOINCREMENT,
    id             TEXT    NOT NULL UNIQUE CHECK (id <> ''),
    uid            TEXT    NOT NULL CHECK (uid <> ''),
    workflow       TEXT    NOT NULL CHECK (workflow <> ''),
    origin         TEXT    NOT NULL,
    version        TEXT    NOT NULL,
    state          TEXT    NOT NULL CHECK (state IN (
        'pending', 'running', 'suspended', 'paused', 'completed', 'cancelled', 'failed', 'parked')),
    reason         TEXT    NOT NULL DEFAULT '',
    input_digest   BLOB    NOT NULL,
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL,
    ended_at       INTEGER,
    -- The smallest deadline of its waits.
    due_at         INTEGER,
    owner          INTEGER REFERENCES "durable_workers" (no),
    -- Grows with every hold: a write with an older one is refused.
    epoch          INTEGER NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    -- How many owners died in a row without one new outcome.
    deaths         INTEGER NOT NULL DEFAULT 0 CHECK (deaths >= 0),
    -- How many entries there were when its last owner died: more of them now are progress.
    survived       INTEGER NOT NULL DEFAULT 0 CHECK (survived >= 0),
    accept_changes INTEGER NOT NULL DEFAULT 0 CHECK (accept_changes IN (0, 1)),
    cancel_at      INTEGER,
    cancel_reason  TEXT,
    cancel_by      TEXT,
    -- The payloads come last: what is read and changed all the time stands before them.
    input          BLOB    NOT NULL,
    result         BLOB, failed_keys TEXT NOT NULL DEFAULT '[]', discarded_at INTEGER, deadline_at INTEGER, deadline_length INTEGER CHECK ((deadline_length IS NULL) = (deadline_at IS NULL)), interrupted INTEGER NOT NULL DEFAULT 0 CHECK (interrupted IN (0, 1)), parent INTEGER REFERENCES "durable_runs" (no) ON DELETE SET NULL, parent_key TEXT, detached INTEGER NOT NULL DEFAULT 0 CHECK (detached IN (0, 1)), deadline_inherited INTEGER NOT NULL DEFAULT 0
    CHECK (deadline_inherited IN (0, 1))
    CHECK (deadline_inherited = 0 OR deadline_at IS NOT NULL), pause_at INTEGER, pause_reason TEXT, pause_by TEXT
    CHECK ((pause_at IS NULL) = (pause_reason IS NULL) AND (pause_at IS NULL) = (pause_by IS NULL))
    CHECK (state <> 'paused' OR pause_at IS NOT NULL)
    CHECK (pause_at IS NULL OR state IN ('running', 'paused'))
    -- Cancel beats pause.
    CHECK (pause_at IS NULL OR cancel_at IS NULL), status TEXT, progress_done INTEGER, progress_total INTEGER CHECK ((progress_done IS NULL) = (progress_total IS NULL)), changed INTEGER NOT NULL DEFAULT 0,
    CHECK ((owner IS NOT NULL) = (state = 'running')),
    CHECK (owner IS NULL OR epoch > 0),
    CHECK ((ended_at IS NOT NULL) = (state IN ('completed', 'cancelled', 'failed', 'parked'))),
    CHECK (result IS NULL OR ended_at IS NOT NULL),
    CHECK (state <> 'completed' OR result IS NOT NULL),
    CHECK (due_at IS NULL OR state IN ('suspended', 'paused')),
    CHECK ((cancel_at IS NULL) = (cancel_reason IS NULL) AND (cancel_at IS NULL) = (cancel_by IS NULL))
) STRICT;

CREATE TABLE durable_schema (
    number     INTEGER NOT NULL PRIMARY KEY CHECK (number > 0),
    name       TEXT    NOT NULL,
    digest     BLOB    NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT;

CREATE TABLE "durable_signals" (
    run      INTEGER NOT NULL REFERENCES "durable_runs" (no) ON DELETE CASCADE,
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

CREATE TABLE durable_sums (
    run      INTEGER NOT NULL,
    -- Which rows of the run: a word that the code gives them.
    part     TEXT    NOT NULL CHECK (part <> ''),
    number   INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (run, part)
) STRICT, WITHOUT ROWID;

CREATE TABLE "durable_ticks" (
    one  INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    tick INTEGER NOT NULL CHECK (tick >= 0)
, commits INTEGER NOT NULL DEFAULT 0 CHECK (commits >= 0), journal TEXT NOT NULL DEFAULT '') STRICT;

CREATE TABLE "durable_waits" (
    run      INTEGER NOT NULL REFERENCES "durable_runs" (no) ON DELETE CASCADE,
    key      TEXT    NOT NULL CHECK (key <> ''),
    kind     TEXT    NOT NULL CHECK (kind <> ''),
    name     TEXT    NOT NULL,
    since_at INTEGER NOT NULL,
    -- When it is over by itself; NULL: never.
    deadline_at INTEGER, target TEXT, over INTEGER NOT NULL DEFAULT 0
    CHECK (over IN (0, 1))
    CHECK (over = 0 OR target IS NOT NULL),
    PRIMARY KEY (run, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE "durable_workers" (
    -- AUTOINCREMENT: a number is never given twice, so a worker that was struck off can never be taken for a later one.
    no         INTEGER PRIMARY KEY AUTOINCREMENT,
    -- Also the name of its side file, whose lock tells whether it lives.
    name       TEXT    NOT NULL UNIQUE CHECK (name <> ''),
    pid        INTEGER NOT NULL CHECK (pid > 0),
    started_at INTEGER NOT NULL,
    -- How many batches it has committed: tells after a doubtful COMMIT whether that one landed.
    batch      INTEGER NOT NULL DEFAULT 0 CHECK (batch >= 0),
    -- A fenced worker may no longer write about any run.
    fenced     INTEGER NOT NULL DEFAULT 0 CHECK (fenced IN (0, 1))
, host TEXT NOT NULL DEFAULT '', lease INTEGER NOT NULL DEFAULT 15000000 CHECK (lease > 0), beats INTEGER NOT NULL DEFAULT 0 CHECK (beats >= 0), beat_at INTEGER, ticked_at INTEGER, latest INTEGER NOT NULL DEFAULT 0 CHECK (latest >= 0), journal TEXT NOT NULL DEFAULT '') STRICT;

CREATE TABLE sqlite_sequence(name,seq);

CREATE UNIQUE INDEX durable_questions_once ON durable_questions (run, dedupe) WHERE dedupe IS NOT NULL;

CREATE INDEX durable_questions_open ON durable_questions (asked_at, run, key) WHERE answer IS NULL AND closed_at IS NULL;

CREATE INDEX durable_run_tags_by_value ON durable_run_tags (name, value, run);

CREATE INDEX durable_runs_by_change ON durable_runs (changed);

CREATE INDEX durable_runs_by_state ON durable_runs (state, workflow);

CREATE INDEX durable_runs_by_workflow ON durable_runs (workflow);

CREATE INDEX durable_runs_children ON durable_runs (parent) WHERE parent IS NOT NULL;

CREATE INDEX durable_runs_due ON durable_runs (workflow, due_at) WHERE state = 'suspended' AND due_at IS NOT NULL;

CREATE INDEX durable_runs_ended ON durable_runs (ended_at) WHERE ended_at IS NOT NULL;

CREATE INDEX durable_runs_letters ON durable_runs (no) WHERE state IN ('failed', 'parked') AND discarded_at IS NULL;

CREATE INDEX durable_runs_owned ON durable_runs (owner) WHERE owner IS NOT NULL;

CREATE INDEX durable_runs_paused_due ON durable_runs (workflow, due_at) WHERE state = 'paused' AND due_at IS NOT NULL;

CREATE INDEX durable_runs_pending ON durable_runs (workflow, updated_at) WHERE state = 'pending' AND deaths < 2;

CREATE INDEX durable_runs_suspect ON durable_runs (workflow, updated_at) WHERE state = 'pending' AND deaths >= 2;

CREATE UNIQUE INDEX durable_signals_once ON durable_signals (run, dedupe) WHERE dedupe IS NOT NULL;

CREATE INDEX durable_signals_waiting ON durable_signals (run, name) WHERE taken_by IS NULL AND error IS NULL;

CREATE INDEX durable_waits_for_mail ON durable_waits (run, kind, name) WHERE kind = 'signal' OR kind = 'question';

CREATE INDEX durable_waits_for_runs ON durable_waits (target) WHERE target IS NOT NULL;

CREATE INDEX durable_waits_over ON durable_waits (run) WHERE over = 1;
