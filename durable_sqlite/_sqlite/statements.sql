-- The SQL of the journal. Each statement stands under its name; the reason stands above.

-- Life ----------------------------------------------------------------------------------------------------------------

-- A new journal keeps the first value; every later worker has to agree with it.
-- name: meta_keep
INSERT INTO meta (name, value) VALUES (:name, :value) ON CONFLICT (name) DO NOTHING;

-- What the journal as a whole has agreed on.
-- name: meta_value
SELECT value FROM meta WHERE name = :name;

-- The worker's number is what a run's owner refers to.
-- name: enrol
INSERT INTO workers (name, pid, started_at) VALUES (:name, :pid, :at);

-- Once a batch: matches no row where the worker is fenced or struck off, and tells later whether the batch landed.
-- name: bump
UPDATE workers SET batch = batch + 1 WHERE no = :me AND NOT fenced;

-- After a doubtful COMMIT: the batch landed if the count moved.
-- name: batch
SELECT batch FROM workers WHERE no = :me;

-- Who else might be alive; the side file of each tells.
-- name: workers
SELECT no, name, pid, started_at FROM workers WHERE no <> :me ORDER BY no;

-- An orderly close gives back what the worker drives: no death, and the count of deaths begins anew.
-- name: release
UPDATE runs SET state = 'pending', owner = NULL, deaths = 0, interrupted = 1, updated_at = :at WHERE owner = :me;

-- The owner's runs were given back or freed before: the reference from runs to workers makes sure of it.
-- name: strike
DELETE FROM workers WHERE no = :no;

-- Starting and ending -------------------------------------------------------------------------------------------------

-- What `start` has to know of the run that has the id already.
-- name: taken
SELECT no, workflow, input_digest, state FROM runs WHERE id = :id;

-- A replaced run takes its entries, tags and waits along (ON DELETE CASCADE).
-- name: forget
DELETE FROM runs WHERE no = :run;

-- The first hold has epoch 1; a run that nobody drives yet has had none.
-- name: insert_run
INSERT INTO runs (
    id, uid, workflow, origin, version, state, input_digest, created_at, updated_at, owner, epoch, input,
    deadline_at, deadline_length
) VALUES (
    :id, :uid, :workflow, :origin, :version, :state, :input_digest, :at, :at, :owner, :epoch, :input,
    :at + :deadline, :deadline
);

-- Tags are fixed at the start.
-- name: insert_tag
INSERT INTO run_tags (run, name, value) VALUES (:run, :name, :value);

-- The first request stays: who asked first, and why, is a fact. A suspended run has news now, so it is pending.
-- name: ask_cancel
UPDATE runs SET
    cancel_at = :at, cancel_reason = :reason, cancel_by = :by, updated_at = :at,
    state = CASE WHEN state IN ('suspended', 'paused') THEN 'pending' ELSE state END, due_at = NULL
WHERE no = :run AND cancel_at IS NULL;

-- Nobody drives it and it has no past, so there is nothing that could clean up: it ends here.
-- name: cancel_unbegun
UPDATE runs SET state = 'cancelled', reason = cancel_reason, ended_at = :at
WHERE no = :run AND state = 'pending' AND NOT EXISTS (SELECT 1 FROM entries WHERE entries.run = runs.no);

-- Only a dead letter waits for a person.
-- name: resume
UPDATE runs SET
    state = 'pending', reason = '', result = NULL, ended_at = NULL, deaths = 0, accept_changes = :accept,
    failed_keys = '[]', discarded_at = NULL, updated_at = :at,
    deadline_at = CASE WHEN reason = 'deadline' THEN :at + deadline_length ELSE deadline_at END
WHERE no = :run AND state IN ('failed', 'parked');

-- What the body saw first of all that is to be tried again.
-- name: first_to_forget
SELECT min(seq) FROM entries WHERE run = :run AND key IN (SELECT value FROM json_each(:keys) AS w);

-- The failures themselves, and whatever the body asked for after it saw the first of them.
-- name: to_forget
SELECT key FROM entries
WHERE run = :run AND (key IN (SELECT value FROM json_each(:keys) AS w) OR asked >= :first)
ORDER BY seq;

-- name: forget_entry
DELETE FROM entries WHERE run = :run AND key = :key;

-- A fresh budget: the attempts of what is tried again, and of what the body had not got an outcome of.
-- name: forget_attempts
DELETE FROM attempts WHERE run = :run AND (
    key IN (SELECT value FROM json_each(:keys) AS w)
    OR NOT EXISTS (SELECT 1 FROM entries WHERE entries.run = attempts.run AND entries.key = attempts.key));

-- name: has_entries
SELECT EXISTS (SELECT 1 FROM entries WHERE run = :run);

-- name: has_entry
SELECT 1 FROM entries WHERE run = :run AND key = :key;

-- name: correct_input
UPDATE runs SET input = :input, input_digest = :digest WHERE no = :run;

-- Seen to is seen to: the first time stays.
-- name: discard
UPDATE runs SET discarded_at = coalesce(discarded_at, :at) WHERE no = :run AND state IN ('failed', 'parked');

-- The worker's hold is checked in the write itself: no row, no right.
-- name: end
UPDATE runs SET
    state = :state, reason = :reason, result = :result, ended_at = :at, updated_at = :at, owner = NULL, deaths = 0,
    interrupted = 0, failed_keys = :failed_keys
WHERE no = :run AND owner = :me AND epoch = :epoch;

-- A run that has ended, or is suspended anew, no longer waits for what it waited for.
-- name: forget_waits
DELETE FROM waits WHERE run = :run;

-- Driving -------------------------------------------------------------------------------------------------------------

-- The oldest pending runs of each workflow: a short walk along the index for each, so that runs of unknown workflows,
-- however many, cost nothing.
-- name: claim_pending
SELECT r.updated_at, r.no
FROM json_each(:workflows) AS w
JOIN runs AS r ON r.no IN (
    SELECT p.no FROM runs AS p
    WHERE p.workflow = w.value AND p.state = 'pending' AND p.deaths < 2
    ORDER BY p.updated_at, p.no LIMIT :limit)
ORDER BY r.updated_at, r.no LIMIT :limit;

-- The same for suspended runs whose time has come.
-- name: claim_due
SELECT r.due_at, r.no
FROM json_each(:workflows) AS w
JOIN runs AS r ON r.no IN (
    SELECT p.no FROM runs AS p
    WHERE p.workflow = w.value AND p.state = 'suspended' AND p.due_at IS NOT NULL AND p.due_at <= :now
    ORDER BY p.due_at, p.no LIMIT :limit)
ORDER BY r.due_at, r.no LIMIT :limit;

-- The same for runs whose owners keep dying: one, so that it takes no neighbour with it.
-- name: claim_suspect
SELECT r.updated_at, r.no
FROM json_each(:workflows) AS w
JOIN runs AS r ON r.no IN (
    SELECT p.no FROM runs AS p
    WHERE p.workflow = w.value AND p.state = 'pending' AND p.deaths >= 2
    ORDER BY p.updated_at, p.no LIMIT 1)
ORDER BY r.updated_at, r.no LIMIT 1;

-- The write lock is held since the look, so nobody was faster.
-- name: take
UPDATE runs SET state = 'running', owner = :me, epoch = epoch + 1, due_at = NULL, updated_at = :at WHERE no = :run;

-- The same epoch means that nobody has driven it since; pending means that news came for it.
-- name: reclaim
UPDATE runs SET state = 'running', owner = :me, epoch = epoch + 1, due_at = NULL, updated_at = :at
WHERE no = :run AND epoch = :epoch AND state IN ('suspended', 'pending');

-- One row a step. The hold is checked in the same statement: no row, no right.
-- name: record
INSERT INTO entries (
    run, key, seq, kind, name, digest, outcome, asked, started_at, recorded_at, attempts, removed, payload
)
SELECT
    no, :key, :seq, :kind, :name, :digest, :outcome, :asked, :started_at, :at, :attempts, :removed, :payload
FROM runs WHERE no = :run AND owner = :me AND epoch = :epoch;

-- name: intend
INSERT INTO intents (run, key, name, digest, asked, at)
SELECT no, :key, :name, :digest, :asked, :at FROM runs WHERE no = :run AND owner = :me AND epoch = :epoch
ON CONFLICT (run, key) DO UPDATE SET at = excluded.at;

-- In doubt is what was about to begin and has no outcome.
-- name: doubtful
SELECT name, digest, asked, at FROM intents
WHERE run = :run AND key = :key
    AND NOT EXISTS (SELECT 1 FROM entries WHERE entries.run = intents.run AND entries.key = intents.key);

-- The decision takes the next place in the run's order.
-- name: decide_value
INSERT INTO entries (
    run, key, seq, kind, name, digest, outcome, asked, started_at, recorded_at, attempts, removed, decided_by, payload)
SELECT :run, :key, coalesce(max(seq), 0) + 1, 'step', :name, :digest, 'value', :asked, :began, :at, 1, 0, :by, :payload
FROM entries WHERE run = :run;

-- name: decide_retry
INSERT INTO attempts (run, key, number, started_at, ended_at, next_at, error)
SELECT :run, :key, coalesce(max(number), 0) + 1, :began, :at, :at, :error FROM attempts WHERE run = :run AND key = :key;

-- name: forget_intent
DELETE FROM intents WHERE run = :run AND key = :key;

-- name: intents
SELECT key, name, digest, asked, at FROM intents WHERE run = :run ORDER BY key;

-- One row a failed attempt, conditional on the hold like any other.
-- name: fail
INSERT INTO attempts (run, key, number, started_at, ended_at, next_at, error)
SELECT no, :key, :number, :started_at, :at, :next_at, :error
FROM runs WHERE no = :run AND owner = :me AND epoch = :epoch;

-- Whether this worker holds the run, and the request to cancel that the body has not been given yet.
-- name: held
SELECT
    cancel_at, cancel_reason, cancel_by,
    cancel_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM entries WHERE entries.run = runs.no AND key = :cancel_key),
    deadline_at
FROM runs WHERE no = :run AND owner = :me AND epoch = :epoch;

-- A person accepted that this call is made differently now.
-- name: amend
UPDATE entries SET name = :name, digest = :digest WHERE run = :run AND key = :key;

-- A person accepted that this call is no longer made; the fact that it was made stays.
-- name: remove
UPDATE entries SET removed = 1 WHERE run = :run AND key = :key;

-- name: settle_changes
UPDATE runs SET accept_changes = 0 WHERE no = :run AND owner = :me AND epoch = :epoch;

-- name: insert_wait
INSERT INTO waits (run, key, kind, name, since_at, deadline_at)
VALUES (:run, :key, :kind, :name, :since, :deadline);

-- A suspended run belongs to nobody. That it came this far without killing anyone clears it.
-- name: suspend
UPDATE runs SET state = 'suspended', owner = NULL, due_at = :due, deaths = 0, interrupted = 0, updated_at = :at
WHERE no = :run;

-- name: give_back
UPDATE runs SET state = 'pending', owner = NULL, interrupted = 1, updated_at = :at
WHERE no = :run AND owner = :me AND epoch = :epoch;

-- What a dead worker drove.
-- name: orphans
SELECT no, deaths, survived FROM runs WHERE owner = :owner ORDER BY no;

-- More entries than at the last death are progress.
-- name: count_entries
SELECT count(*) FROM entries WHERE run = :run;

-- name: free
UPDATE runs SET
    state = 'pending', owner = NULL, deaths = :deaths, survived = :survived, interrupted = 1, updated_at = :at
WHERE no = :run;

-- name: park
UPDATE runs SET
    state = 'parked', reason = :reason, result = :result, ended_at = :at, owner = NULL, interrupted = 1,
    deaths = :deaths, survived = :survived, updated_at = :at
WHERE no = :run;

-- For the message of a refused write only.
-- name: whose
SELECT id, state, owner, epoch FROM runs WHERE no = :run;

-- Reading -------------------------------------------------------------------------------------------------------------

-- The one list of columns; what follows picks rows of it.
-- name: run_select
SELECT
    no, id, uid, workflow, origin, version, state, reason, input, input_digest, result, created_at, updated_at,
    ended_at, due_at, owner, epoch, deaths, accept_changes, cancel_at, cancel_reason, cancel_by,
    deadline_at, deadline_length, interrupted, failed_keys, discarded_at
FROM runs

-- name: run_count
SELECT count(*) FROM runs

-- name: where_no
WHERE no = :no

-- name: where_id
WHERE id = :id

-- name: where_workflow
workflow = :workflow

-- name: where_reason
reason = :reason

-- The words of the partial index, so that it can serve.
-- name: where_letters
state IN ('failed', 'parked') AND discarded_at IS NULL

-- name: where_created_from
created_at >= :created_from

-- name: where_created_before
created_at < :created_before

-- name: where_after_newest
no < :after

-- name: where_after_oldest
no > :after

-- name: where_tag
no IN (SELECT run FROM run_tags WHERE name = :tag_name AND value = :tag_value)

-- name: newest_first
ORDER BY no DESC LIMIT :limit

-- name: oldest_first
ORDER BY no LIMIT :limit

-- name: tags
SELECT name, value FROM run_tags WHERE run = :run ORDER BY name;

-- The memory of a run in its one order. The key leads to the rows; a run's own entries are sorted in memory, because an
-- index on the order would be a second write for every step.
-- name: entries
SELECT seq, key, kind, name, digest, outcome, payload, asked, started_at, recorded_at, attempts, removed, decided_by
FROM entries WHERE run = :run ORDER BY seq;

-- name: attempts
SELECT key, number, started_at, ended_at, next_at, error FROM attempts WHERE run = :run ORDER BY key, number;

-- name: waits
SELECT key, kind, name, since_at, deadline_at FROM waits WHERE run = :run ORDER BY since_at, key;

-- When to look again: the first end of an index for each workflow.
-- name: next_due
SELECT min((
    SELECT min(due_at) FROM runs WHERE workflow = w.value AND state = 'suspended' AND due_at IS NOT NULL))
FROM json_each(:workflows) AS w;

-- What recovery has to know: also of workflows that this process does not know.
-- name: backlog
SELECT workflow, origin, count(*) FROM runs
WHERE state = 'pending' OR (state = 'suspended' AND due_at IS NOT NULL)
GROUP BY workflow, origin ORDER BY workflow, origin;
