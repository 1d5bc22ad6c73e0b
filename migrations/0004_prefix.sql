-- The journal's own names get a prefix.
--
-- From here on the application's own tables live in the same file, so that its rows and the journal's are one commit. A
-- table of the application may be called `runs` or `signals` as it likes: whatever begins with `durable_` is the
-- journal's, and everything else is not. SQLite follows the references when a table is renamed; an index cannot be
-- renamed, so each is made anew.

ALTER TABLE meta RENAME TO durable_meta;
ALTER TABLE ticks RENAME TO durable_ticks;
ALTER TABLE workers RENAME TO durable_workers;
ALTER TABLE runs RENAME TO durable_runs;
ALTER TABLE run_tags RENAME TO durable_run_tags;
ALTER TABLE entries RENAME TO durable_entries;
ALTER TABLE attempts RENAME TO durable_attempts;
ALTER TABLE intents RENAME TO durable_intents;
ALTER TABLE waits RENAME TO durable_waits;
ALTER TABLE signals RENAME TO durable_signals;
ALTER TABLE questions RENAME TO durable_questions;
ALTER TABLE early RENAME TO durable_early;

-- Serves `claim`: the oldest pending runs of a workflow.
DROP INDEX runs_pending;
CREATE INDEX durable_runs_pending ON durable_runs (workflow, updated_at) WHERE state = 'pending' AND deaths < 2;
-- Serves `claim` with suspects: pending runs whose owners keep dying.
DROP INDEX runs_suspect;
CREATE INDEX durable_runs_suspect ON durable_runs (workflow, updated_at) WHERE state = 'pending' AND deaths >= 2;
-- Serves `claim` and `next_due`: the suspended runs of a workflow in the order in which they are due.
DROP INDEX runs_due;
CREATE INDEX durable_runs_due ON durable_runs (workflow, due_at) WHERE state = 'suspended' AND due_at IS NOT NULL;
-- Serves `take_over`, `close` and the striking off of a worker: the runs that somebody drives.
DROP INDEX runs_owned;
CREATE INDEX durable_runs_owned ON durable_runs (owner) WHERE owner IS NOT NULL;
-- Serves lists and counts of one workflow, in the order of creation.
DROP INDEX runs_by_workflow;
CREATE INDEX durable_runs_by_workflow ON durable_runs (workflow);
-- Serves lists and counts by state, and `backlog`.
DROP INDEX runs_by_state;
CREATE INDEX durable_runs_by_state ON durable_runs (state, workflow);
-- Serves lists and counts by tag.
DROP INDEX run_tags_by_value;
CREATE INDEX durable_run_tags_by_value ON durable_run_tags (name, value, run);
-- Serves `dead_letters`: the few that nobody has seen to, among however many runs.
DROP INDEX runs_letters;
CREATE INDEX durable_runs_letters ON durable_runs (no) WHERE state IN ('failed', 'parked') AND discarded_at IS NULL;
-- Makes redelivery harmless.
DROP INDEX signals_once;
CREATE UNIQUE INDEX durable_signals_once ON durable_signals (run, dedupe) WHERE dedupe IS NOT NULL;
-- Serves `suspend`, `mail` and `news`: the few messages that wait, among however many that were taken.
DROP INDEX signals_waiting;
CREATE INDEX durable_signals_waiting ON durable_signals (run, name) WHERE taken_by IS NULL AND error IS NULL;
-- Makes a repeated answer harmless.
DROP INDEX questions_once;
CREATE UNIQUE INDEX durable_questions_once ON durable_questions (run, dedupe) WHERE dedupe IS NOT NULL;
-- Serves the list of open questions, over all runs.
DROP INDEX questions_open;
CREATE INDEX durable_questions_open ON durable_questions (asked_at, run, key) WHERE answer IS NULL AND closed_at IS NULL;
-- Serves the end of a run: who waits for it.
DROP INDEX waits_for_runs;
CREATE INDEX durable_waits_for_runs ON durable_waits (target) WHERE target IS NOT NULL;
-- Serves `suspend` and `news`: the waits for runs that have ended.
DROP INDEX waits_over;
CREATE INDEX durable_waits_over ON durable_waits (run) WHERE over = 1;
-- Serves `suspend` and `signal`: the waits for messages and answers, among however many for other things.
DROP INDEX waits_for_mail;
CREATE INDEX durable_waits_for_mail ON durable_waits (run, kind, name) WHERE kind = 'signal' OR kind = 'question';
-- Serves what is asked of a run and its descendants.
DROP INDEX runs_children;
CREATE INDEX durable_runs_children ON durable_runs (parent) WHERE parent IS NOT NULL;
-- Serves watchers: what changed since they looked.
DROP INDEX runs_by_change;
CREATE INDEX durable_runs_by_change ON durable_runs (changed);
-- Serves `claim` and `next_due`, as `durable_runs_due` does: paused runs are due at their deadline.
DROP INDEX runs_paused_due;
CREATE INDEX durable_runs_paused_due ON durable_runs (workflow, due_at) WHERE state = 'paused' AND due_at IS NOT NULL;

-- Which numbered files of the application's own schema were applied, and what stood in them.
CREATE TABLE durable_schema (
    number     INTEGER NOT NULL PRIMARY KEY CHECK (number > 0),
    name       TEXT    NOT NULL,
    digest     BLOB    NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT;
