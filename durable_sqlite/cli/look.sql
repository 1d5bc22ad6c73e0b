-- What the command line reads. Each statement stands under its name; the reason stands above.
--
-- They name each column they want, and read no payload that is not shown. The lists of columns belong to the records in
-- `_rows.py`.

-- The whole of a run but its payloads; what follows picks rows of it.
-- name: run_select
SELECT
    runs.no, id, uid, workflow, origin, version, state, reason, created_at, updated_at, ended_at, due_at, owner, epoch,
    deaths, survived, interrupted, deadline_at, deadline_inherited, cancel_at, cancel_reason, cancel_by,
    pause_at, pause_reason, pause_by, status, progress_done, progress_total,
    (SELECT p.id FROM durable_runs AS p WHERE p.no = runs.parent), parent_key, detached, discarded_at, failed_keys,
    changed
FROM durable_runs AS runs

-- name: run_by_no
WHERE runs.no = :no

-- Finding a run by what a person types ----------------------------------------------------------------------------------

-- name: exactly
SELECT no, id FROM durable_runs WHERE id = :id;

-- Every text that begins so lies between the two in the index.
-- name: beginning
SELECT no, id FROM durable_runs WHERE id >= :typed AND id < :behind ORDER BY id LIMIT :limit;

-- An ending has no index; the ids' own index is read through, and no row.
-- name: ending
SELECT no, id FROM durable_runs WHERE substr(id, -length(:typed)) = :typed LIMIT :limit;

-- name: newest
SELECT no, id FROM durable_runs ORDER BY no DESC LIMIT 1;

-- name: any_run
SELECT EXISTS (SELECT 1 FROM durable_runs);

-- The list --------------------------------------------------------------------------------------------------------------

-- The numbers first: where there are conditions, their indexes alone tell them.
-- name: list_numbers
SELECT no FROM durable_runs AS runs

-- name: list_newest
ORDER BY no DESC LIMIT :limit

-- name: where_workflow
workflow = :workflow

-- name: where_tag
no IN (SELECT run FROM durable_run_tags WHERE name = :tag_name AND value = :tag_value)

-- name: where_since
created_at >= :since

-- The number of each, in that order.
-- name: runs_of
WHERE runs.no IN (SELECT value FROM json_each(:numbers) AS w) ORDER BY runs.no DESC

-- What a run is said to wait for in one line: what opened first.
-- name: first_waits
SELECT key, kind, name, since_at, deadline_at, target, over FROM durable_waits
WHERE run = :run ORDER BY since_at, key LIMIT :limit;

-- One run ---------------------------------------------------------------------------------------------------------------

-- name: tags
SELECT name, value FROM durable_run_tags WHERE run = :run ORDER BY name;

-- name: input
SELECT length(input), substr(input, 1, :most) FROM durable_runs WHERE no = :run;

-- name: result
SELECT length(result), substr(result, 1, :most) FROM durable_runs WHERE no = :run AND result IS NOT NULL;

-- name: entry_count
SELECT count(*), max(recorded_at) FROM durable_entries WHERE run = :run;

-- The last of them, in their order.
-- name: entries
SELECT seq, key, kind, name, outcome, asked, started_at, recorded_at, attempts, removed, decided_by,
    length(payload), substr(payload, 1, :most)
FROM durable_entries WHERE run = :run ORDER BY seq DESC LIMIT :limit;

-- name: attempts
SELECT key, number, started_at, ended_at, next_at, error FROM durable_attempts
WHERE run = :run ORDER BY key, number LIMIT :limit;

-- name: intents
SELECT key, name, at FROM durable_intents WHERE run = :run ORDER BY at, key LIMIT :limit;

-- name: wait_count
SELECT count(*) FROM durable_waits WHERE run = :run;

-- Those that were not taken; those that were set aside included.
-- name: messages
SELECT no, name, sent_at, dedupe, error, length(payload), substr(payload, 1, :most) FROM durable_signals
WHERE run = :run AND taken_by IS NULL ORDER BY no LIMIT :limit;

-- The last one of a name, whether it was taken or not, that was not set aside as wrong.
-- name: last_message
SELECT length(payload), substr(payload, 1, :most) FROM durable_signals
WHERE run = :run AND name = :name AND error IS NULL ORDER BY no DESC LIMIT 1;

-- name: questions
SELECT key, name, schema, asked_at, deadline_at, answered_at, answered_by, closed_at, error,
    length(payload), substr(payload, 1, :most), length(answer), substr(answer, 1, :most)
FROM durable_questions WHERE run = :run ORDER BY no LIMIT :limit;

-- name: children
SELECT no, id, workflow, state, reason, created_at, ended_at, parent_key FROM durable_runs
WHERE parent = :run ORDER BY no LIMIT :limit;

-- The journal -----------------------------------------------------------------------------------------------------------

-- The runs that no engine goes on with, because what is stored of them is not what was written, and nobody has seen to.
-- name: damaged_runs
SELECT id FROM durable_runs
WHERE state IN ('failed', 'parked') AND discarded_at IS NULL AND reason = 'damaged' ORDER BY no;

-- name: meta_value
SELECT value FROM durable_meta WHERE name = :name;

-- name: worker
SELECT no, name, pid, started_at, fenced, host, lease, beat_at, ticked_at,
    EXISTS (SELECT 1 FROM durable_runs WHERE owner = workers.no)
FROM durable_workers AS workers WHERE no = :no;

-- name: workers
SELECT no, name, pid, started_at, fenced, host, lease, beat_at, ticked_at,
    EXISTS (SELECT 1 FROM durable_runs WHERE owner = workers.no)
FROM durable_workers AS workers ORDER BY no;

-- The last time that a worker wrote anything with a time: a lease is renewed by whatever its worker writes, and a time is noted
-- only where it has nothing else to write.
-- name: last_sign
SELECT max(coalesce(w.beat_at, w.started_at), coalesce((
    SELECT max(max(r.updated_at, coalesce((SELECT max(recorded_at) FROM durable_entries WHERE run = r.no), 0)))
    FROM (SELECT no, updated_at FROM durable_runs WHERE owner = :worker LIMIT 1000) AS r), 0))
FROM durable_workers AS w WHERE w.no = :worker;

-- Moves with each commit of another connection; nothing is read besides.
-- name: pulse
PRAGMA data_version;

-- Watching: what changed since, in the order of the changes.
-- name: changed_since
SELECT no FROM durable_runs INDEXED BY durable_runs_by_change WHERE changed > :since ORDER BY changed, no LIMIT :limit;

-- name: last_change
SELECT max(changed) FROM durable_runs;

-- What has not stopped, that which changed last first.
-- name: under_way
SELECT no FROM durable_runs WHERE state IN ('pending', 'running', 'suspended', 'paused') ORDER BY changed DESC LIMIT :limit;

-- Counting: along indexes, and no row is read.
-- name: count_by_state
SELECT state, count(*) FROM durable_runs GROUP BY state;

-- name: count_by_workflow
SELECT workflow, count(*) FROM durable_runs GROUP BY workflow ORDER BY 2 DESC, 1 LIMIT :limit;

-- name: count_the_rest
SELECT
    (SELECT count(*) FROM durable_runs INDEXED BY durable_runs_letters
        WHERE state IN ('failed', 'parked') AND discarded_at IS NULL),
    (SELECT count(*) FROM durable_questions WHERE answer IS NULL AND closed_at IS NULL),
    (SELECT count(*) FROM durable_signals WHERE taken_by IS NULL AND error IS NULL),
    (SELECT min(updated_at) FROM durable_runs WHERE state = 'pending'),
    (SELECT min(due_at) FROM durable_runs INDEXED BY durable_runs_due WHERE state = 'suspended' AND due_at IS NOT NULL);

-- Of the application's own tables too.
-- name: foreign_key_check
PRAGMA foreign_key_check;

-- Acting --------------------------------------------------------------------------------------------------------------

-- What a run had recorded before somebody took it up.
-- name: last_entry
SELECT coalesce(max(seq), 0) FROM durable_entries WHERE run = :run AND recorded_at < :before;

-- What a run that is being driven has recorded since.
-- name: entries_since
SELECT seq, key, kind, outcome, started_at, recorded_at FROM durable_entries
WHERE run = :run AND seq > :after ORDER BY seq LIMIT :limit;

-- name: status
SELECT status FROM durable_runs WHERE no = :run;

-- Whether a run, or one that its body started, could go on by itself until then: its owner may be dead.
-- name: work_below
WITH RECURSIVE below (no) AS (
    SELECT :run
    UNION
    SELECT runs.no FROM below JOIN durable_runs AS runs ON runs.parent = below.no WHERE runs.detached = 0)
SELECT EXISTS (
    SELECT 1 FROM below JOIN durable_runs AS r ON r.no = below.no
    WHERE +r.state IN ('pending', 'running') OR (+r.state IN ('suspended', 'paused') AND r.due_at <= :until));

-- The workflows of which there is something to drive: the code of each has to be found.
-- name: origins_under_way
SELECT DISTINCT workflow, origin FROM durable_runs
WHERE state IN ('pending', 'running', 'suspended') AND origin <> '' ORDER BY workflow, origin;

-- How these stand now, those that changed last last.
-- name: states_of
SELECT id, workflow, state FROM durable_runs
WHERE id IN (SELECT value FROM json_each(:ids) AS w) ORDER BY changed, no;

-- When the next run goes on by itself, and how many could at once.
-- name: next_time
SELECT
    (SELECT min(due_at) FROM durable_runs WHERE state = 'suspended' AND due_at IS NOT NULL),
    (SELECT count(*) FROM durable_runs WHERE state = 'pending');

-- Dead letters, those that came last first.
-- name: letters
SELECT no, id, workflow, state, reason, coalesce(ended_at, updated_at), failed_keys, result
FROM durable_runs INDEXED BY durable_runs_letters
WHERE state IN ('failed', 'parked') AND discarded_at IS NULL
    AND (:workflow IS NULL OR workflow = :workflow) AND (:reason IS NULL OR reason = :reason)
ORDER BY no DESC LIMIT :limit;
