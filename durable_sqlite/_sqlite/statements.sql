-- The SQL of the journal. Each statement stands under its name; the reason stands above.

-- Life ----------------------------------------------------------------------------------------------------------------

-- A new journal keeps the first value; every later worker has to agree with it.
-- name: meta_keep
INSERT INTO durable_meta (name, value) VALUES (:name, :value) ON CONFLICT (name) DO NOTHING;

-- What the journal as a whole has agreed on.
-- name: meta_value
SELECT value FROM durable_meta WHERE name = :name;

-- What the journal as a whole has agreed on anew.
-- name: meta_set
INSERT INTO durable_meta (name, value) VALUES (:name, :value) ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- name: meta_forget
DELETE FROM durable_meta WHERE name = :name;

-- The worker's number is what a run's owner refers to.
-- name: enrol
INSERT INTO durable_workers (name, pid, started_at, host, lease) VALUES (:name, :pid, :at, :host, :lease);

-- Whether a worker was enrolled already: what became of a COMMIT that failed.
-- name: enrolled
SELECT no FROM durable_workers WHERE name = :name;

-- The identities that the rows bear which are written all the time.
-- name: signed
SELECT journal FROM durable_ticks WHERE journal <> '' UNION SELECT journal FROM durable_workers WHERE journal <> '';

-- name: sign_workers
UPDATE durable_workers SET journal = :identity WHERE journal <> :identity;

-- name: sign_ticks
UPDATE durable_ticks SET journal = :identity WHERE journal <> :identity;

-- Once a batch: matches no row where the worker is fenced or struck off, and tells later whether the batch landed. The
-- number that it gives is the commit's own, over all workers.
-- name: bump
UPDATE durable_workers SET
    batch = batch + 1,
    latest = 1 + max((SELECT max(latest) FROM durable_workers), (SELECT commits FROM durable_ticks))
WHERE no = :me AND NOT fenced
RETURNING latest;

-- The number of the last commit.
-- name: last_commit
SELECT max(commits, (SELECT coalesce(max(latest), 0) FROM durable_workers)) FROM durable_ticks;

-- After commits were lost, the next one has a number that none of them had.
-- name: go_on_from
UPDATE durable_ticks SET commits = :commits;

-- No row where the worker was struck off. Who holds no run has nothing to renew.
-- name: lease
SELECT EXISTS (SELECT 1 FROM durable_runs WHERE owner = :me) FROM durable_workers WHERE no = :me AND NOT fenced;

-- Renews a lease while nothing else is written. Who was struck off renews nothing.
-- name: beat
UPDATE durable_workers SET beats = beats + 1, beat_at = :at, ticked_at = :ticked WHERE no = :me AND NOT fenced;

-- After a doubtful COMMIT: the batch landed if the count moved.
-- name: batch
SELECT batch, fenced FROM durable_workers WHERE no = :me;

-- What was applied of the application's own schema.
-- name: schema_applied
SELECT number, name, digest FROM durable_schema ORDER BY number;

-- name: schema_apply
INSERT INTO durable_schema (number, name, digest, applied_at) VALUES (:number, :name, :digest, :at);

-- Who else might be alive: the side file of each tells, or whether its counters move.
-- name: workers
SELECT
    no, name, pid, started_at, host, lease, batch + beats, beat_at, ticked_at,
    EXISTS (SELECT 1 FROM durable_runs WHERE owner = workers.no)
FROM durable_workers AS workers WHERE no <> :me ORDER BY no;

-- name: moved
SELECT batch + beats FROM durable_workers WHERE no = :no;

-- An orderly close gives back what the worker drives: no death, and the count of deaths begins anew.
-- name: release
UPDATE durable_runs AS runs SET
    state = CASE WHEN pause_at IS NULL THEN 'pending' ELSE 'paused' END, owner = NULL, deaths = 0, interrupted = 1,
    due_at = CASE WHEN pause_at IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM durable_entries AS entries
        WHERE entries.run = runs.no AND entries.key = :cancel_key) THEN deadline_at END,
    updated_at = :at, changed = :tick
WHERE owner = :me;

-- The owner's runs were given back or freed before: the reference from runs to workers makes sure of it.
-- name: strike
DELETE FROM durable_workers WHERE no = :no;

-- One number for all that one commit changes of runs. Others see the commits in this order, so nobody who has seen a
-- number misses a smaller one.
-- name: tick
UPDATE durable_ticks SET tick = tick + 1 WHERE one = 1 RETURNING tick;

-- Starting and ending -------------------------------------------------------------------------------------------------

-- What `start` has to know of the run that has the id already.
-- name: taken
SELECT no, workflow, input_digest, state, uid, parent FROM durable_runs WHERE id = :id;

-- What a run hands down to its children.
-- name: heritage
SELECT deadline_at, cancel_at, cancel_reason, cancel_by, pause_at, pause_reason, pause_by FROM durable_runs
WHERE no = :run;

-- How many rows go with a run, or are written because it goes: its children lose their parent.
-- name: rows_of
SELECT 1
    + (SELECT count(*) FROM durable_run_tags WHERE run = :run)
    + (SELECT count(*) FROM durable_entries WHERE run = :run)
    + (SELECT count(*) FROM durable_attempts WHERE run = :run)
    + (SELECT count(*) FROM durable_intents WHERE run = :run)
    + (SELECT count(*) FROM durable_waits WHERE run = :run)
    + (SELECT count(*) FROM durable_signals WHERE run = :run)
    + (SELECT count(*) FROM durable_questions WHERE run = :run)
    + (SELECT count(*) FROM durable_early WHERE run = :run)
    + (SELECT count(*) FROM durable_runs WHERE parent = :run);

-- A replaced run takes its entries, tags, waits and messages along (ON DELETE CASCADE), and leaves its children behind.
-- name: forget
DELETE FROM durable_runs WHERE no = :run;

-- The first hold has epoch 1; a run that nobody drives yet has had none.
-- name: insert_run
INSERT INTO durable_runs (
    id, uid, workflow, origin, version, state, reason, input_digest, created_at, updated_at, ended_at, due_at,
    owner, epoch, input, deadline_at, deadline_length, deadline_inherited, parent, parent_key, detached,
    cancel_at, cancel_reason, cancel_by, pause_at, pause_reason, pause_by, changed
) VALUES (
    :id, :uid, :workflow, :origin, :version, :state, coalesce(:reason, ''), :input_digest, :at, :at, :ended_at, :due,
    :owner, :epoch, :input, :deadline_at, :deadline_at - :at, :inherited, :parent, :parent_key, :detached,
    :cancel_at, :cancel_reason, :cancel_by, :pause_at, :pause_reason, :pause_by, :tick
);

-- Tags are fixed at the start.
-- name: insert_tag
INSERT INTO durable_run_tags (run, name, value) VALUES (:run, :name, :value);

-- The first request stays: who asked first, and why, is a fact. A run at rest has news now, so it is pending; to pause a
-- run that is to end has no use.
-- name: ask_cancel
UPDATE durable_runs SET
    cancel_at = :at, cancel_reason = :reason, cancel_by = :by, pause_at = NULL, pause_reason = NULL, pause_by = NULL,
    state = CASE WHEN state IN ('suspended', 'paused') THEN 'pending' ELSE state END, due_at = NULL,
    updated_at = :at, changed = :tick
WHERE no = :run AND cancel_at IS NULL AND state IN ('pending', 'running', 'suspended', 'paused');

-- Nobody drives it and it has no past, so there is nothing that could clean up: it ends here. One that waited for
-- something has a past, though nothing is recorded; so has one whose driver left it in the middle.
-- name: cancel_unbegun
UPDATE durable_runs AS runs SET
    state = 'cancelled', reason = :reason, ended_at = :at, due_at = NULL,
    cancel_at = :at, cancel_reason = :reason, cancel_by = :by, pause_at = NULL, pause_reason = NULL, pause_by = NULL,
    updated_at = :at, changed = :tick
WHERE no = :run AND cancel_at IS NULL AND (state = 'pending' OR (state = 'paused' AND epoch = 0))
    AND interrupted = 0
    AND NOT EXISTS (SELECT 1 FROM durable_entries AS entries WHERE entries.run = runs.no)
    AND NOT EXISTS (SELECT 1 FROM durable_waits AS waits WHERE waits.run = runs.no);

-- This request is what ended it, so it takes the place of an earlier one. The epoch grows, so that whoever drives the
-- run, or has its body at rest, is refused.
-- name: terminate
UPDATE durable_runs SET
    state = 'cancelled', reason = :reason, result = NULL, ended_at = :at, due_at = NULL, owner = NULL,
    epoch = epoch + 1, deaths = 0, interrupted = 0, failed_keys = '[]', discarded_at = NULL,
    cancel_at = :at, cancel_reason = :reason, cancel_by = :by, pause_at = NULL, pause_reason = NULL, pause_by = NULL,
    updated_at = :at, changed = :tick
WHERE no = :run AND state NOT IN ('completed', 'cancelled') AND (:named OR state <> 'failed');

-- What nobody drives is paused at once, and due at its deadline only. A body that was told to end is left to it.
-- name: ask_pause
UPDATE durable_runs AS runs SET
    pause_at = :at, pause_reason = :reason, pause_by = :by,
    state = CASE WHEN owner IS NULL THEN 'paused' ELSE state END,
    due_at = CASE WHEN owner IS NULL THEN deadline_at END,
    updated_at = :at, changed = :tick
WHERE no = :run AND pause_at IS NULL AND cancel_at IS NULL AND state IN ('pending', 'running', 'suspended')
    AND NOT EXISTS (
        SELECT 1 FROM durable_entries AS entries WHERE entries.run = runs.no AND entries.key = :cancel_key);

-- The body was told to end: nothing holds up its clean-up.
-- name: end_pause
UPDATE durable_runs SET pause_at = NULL, pause_reason = NULL, pause_by = NULL, changed = :tick
WHERE no = :run AND pause_at IS NOT NULL;

-- name: unpause
UPDATE durable_runs SET
    pause_at = NULL, pause_reason = NULL, pause_by = NULL,
    state = CASE WHEN state = 'paused' THEN 'pending' ELSE state END, due_at = NULL,
    accept_changes = max(accept_changes, :accept), updated_at = :at, changed = :tick
WHERE no = :run AND pause_at IS NOT NULL;

-- All that a run's body started, and theirs. A detached run is left alone, with all that is below it.
-- name: below
WITH RECURSIVE below (no) AS (
    SELECT no FROM durable_runs WHERE parent = :run AND detached = 0
    UNION ALL
    SELECT runs.no FROM below JOIN durable_runs AS runs ON runs.parent = below.no WHERE runs.detached = 0)
SELECT no FROM below ORDER BY no;

-- A child of this run by its id, unless it is detached.
-- name: child
SELECT no FROM durable_runs WHERE id = :id AND parent = :run AND detached = 0;

-- Only a dead letter waits for a person.
-- name: resume
UPDATE durable_runs SET
    state = 'pending', reason = '', result = NULL, ended_at = NULL, deaths = 0, accept_changes = :accept,
    failed_keys = '[]', discarded_at = NULL, updated_at = :at, changed = :tick,
    deadline_at = :deadline_at, deadline_length = :length, deadline_inherited = :inherited
WHERE no = :run;

-- A child whose end the body saw and is to forget, and has failed or is parked: by the key under which the body called
-- it, or by the id under which the body waited for it. And, where the deadline of the run was the reason, a child that
-- failed at the same one and whose end the body was not given.
-- name: fallen
SELECT no FROM durable_runs AS runs
WHERE parent = :run AND state IN ('failed', 'parked') AND (
    parent_key IN (SELECT value FROM json_each(:keys) AS w)
    OR id IN (SELECT value FROM json_each(:ids) AS w)
    OR (:late AND reason = 'deadline' AND deadline_inherited AND NOT EXISTS (
        SELECT 1 FROM durable_entries AS entries
        WHERE entries.run = :run AND entries.key = runs.parent_key AND kind = 'child')))
ORDER BY no;

-- What the body saw first of all that is to be tried again.
-- name: first_to_forget
SELECT min(seq) FROM durable_entries WHERE run = :run AND key IN (SELECT value FROM json_each(:keys) AS w);

-- The failures themselves, and whatever the body asked for after it saw the first of them.
-- name: to_forget
SELECT key, kind, name FROM durable_entries
WHERE run = :run AND (key IN (SELECT value FROM json_each(:keys) AS w) OR asked >= :first)
ORDER BY seq;

-- When the body was given the first of what is to be forgotten.
-- name: seen_since
SELECT min(recorded_at) FROM durable_entries WHERE run = :run AND key IN (SELECT value FROM json_each(:keys) AS w);

-- Children that were cancelled because the body of a run above them no longer waited, for what is to be forgotten.
-- name: given_up
SELECT no FROM durable_runs
WHERE parent = :run AND detached = 0 AND +state = 'cancelled' AND cancel_by = :by AND cancel_at >= :since
ORDER BY no;

-- name: uncancel
UPDATE durable_runs SET cancel_at = NULL, cancel_reason = NULL, cancel_by = NULL, changed = :tick WHERE no = :run;

-- name: forget_entry
DELETE FROM durable_entries WHERE run = :run AND key = :key;

-- A fresh budget: the attempts of what is tried again, and of what the body had not got an outcome of.
-- name: forget_attempts
DELETE FROM durable_attempts AS attempts WHERE run = :run AND (
    key IN (SELECT value FROM json_each(:keys) AS w)
    OR NOT EXISTS (SELECT 1 FROM durable_entries AS entries
        WHERE entries.run = attempts.run AND entries.key = attempts.key));

-- What was taken by what is forgotten may be taken again.
-- name: give_back_messages
UPDATE durable_signals SET taken_by = NULL WHERE run = :run AND taken_by IN (SELECT value FROM json_each(:keys) AS w);

-- What is forgotten will be asked again, and so will what nobody answered before the run stopped. An answer that the
-- body was not given yet stays: it is to be taken.
-- name: forget_questions
DELETE FROM durable_questions AS questions WHERE run = :run AND (
    key IN (SELECT value FROM json_each(:keys) AS w)
    OR (answer IS NULL AND NOT EXISTS (
        SELECT 1 FROM durable_entries AS entries WHERE entries.run = questions.run AND entries.key = questions.key)));

-- name: has_entries
SELECT EXISTS (SELECT 1 FROM durable_entries WHERE run = :run);

-- name: correct_input
UPDATE durable_runs SET input = :input, input_digest = :digest, changed = :tick WHERE no = :run;

-- Seen to is seen to: the first time stays.
-- name: discard
UPDATE durable_runs SET discarded_at = coalesce(discarded_at, :at), changed = :tick
WHERE no = :run AND state IN ('failed', 'parked');

-- A run that failed at its parent's deadline is the parent's letter, not one of its own.
-- name: end
UPDATE durable_runs SET
    state = :state, reason = :reason, result = :result, ended_at = :at, owner = NULL, deaths = 0,
    interrupted = :interrupted,
    failed_keys = :failed_keys, pause_at = NULL, pause_reason = NULL, pause_by = NULL,
    discarded_at = CASE WHEN :state = 'failed' AND :reason = 'deadline' AND deadline_inherited THEN :at END,
    updated_at = :at, changed = :tick
WHERE no = :run AND owner = :me AND epoch = :epoch;

-- A run that has stopped no longer waits for what it waited for.
-- name: forget_waits
DELETE FROM durable_waits WHERE run = :run;

-- Nor does it ask anybody.
-- name: close_questions
UPDATE durable_questions SET closed_at = :at WHERE run = :run AND answer IS NULL AND closed_at IS NULL;

-- Whoever waits for the end of a run is told, by its id: also whoever is driven now and looks when it comes to rest.
-- name: mark_over
UPDATE durable_waits SET over = 1 WHERE target = :id AND over = 0;

-- The run goes on, or another has its id now.
-- name: mark_under_way
UPDATE durable_waits SET over = 0 WHERE target = :id AND over = 1;

-- The waits lead to the runs (the plus keeps it so): as many may be suspended as there are.
-- name: wake_waiters
UPDATE durable_runs SET state = 'pending', due_at = NULL, updated_at = :at, changed = :tick
WHERE no IN (SELECT run FROM durable_waits WHERE target = :id) AND +state = 'suspended';

-- Pruning -------------------------------------------------------------------------------------------------------------

-- The runs that ended by then, a short walk along their index. Which of them are wanted is seen one by one: a condition
-- here would walk past however many that are not, while others want the write lock.
-- name: ended_by
SELECT
    ended_at, no, id,
    state IN (SELECT value FROM json_each(:states) AS w) OR (:discarded AND coalesce(discarded_at <= :before, 0))
FROM durable_runs INDEXED BY durable_runs_ended
WHERE ended_at IS NOT NULL AND ended_at <= :before AND ended_at >= :after_at
    AND (ended_at, no) > (:after_at, :after_no)
ORDER BY ended_at, no LIMIT :looks;

-- Somebody waits for the run; a run above it may ask for it again; or something is left below it that is to stay.
-- name: is_needed
SELECT EXISTS (
    SELECT 1 FROM durable_waits WHERE target = :id
) OR EXISTS (
    WITH RECURSIVE above (no) AS (
        SELECT parent FROM durable_runs WHERE no = :run
        UNION ALL
        SELECT runs.parent FROM above JOIN durable_runs AS runs ON runs.no = above.no)
    SELECT 1 FROM above JOIN durable_runs AS runs ON runs.no = above.no
    WHERE +runs.state NOT IN ('completed', 'cancelled')
) OR EXISTS (
    WITH RECURSIVE below (no) AS (
        SELECT no FROM durable_runs WHERE parent = :run AND detached = 0
        UNION ALL
        SELECT runs.no FROM below JOIN durable_runs AS runs ON runs.parent = below.no WHERE runs.detached = 0)
    SELECT 1 FROM below JOIN durable_runs AS runs ON runs.no = below.no
    WHERE NOT coalesce(ended_at <= :before, 0) OR NOT (
        +state IN (SELECT value FROM json_each(:states) AS w) OR (:discarded AND coalesce(discarded_at <= :before, 0))));

-- Messages and questions ----------------------------------------------------------------------------------------------

-- name: message_of
SELECT no, name, payload, sent_at, dedupe, taken_by, error FROM durable_signals WHERE run = :run AND dedupe = :dedupe;

-- name: insert_message
INSERT INTO durable_signals (run, no, name, sent_at, dedupe, payload)
SELECT :run, coalesce(max(no), 0) + 1, :name, :at, :dedupe, :payload FROM durable_signals WHERE run = :run
RETURNING no;

-- Whether a run waits for a message. One that comes after the deadline of a wait is not for that wait, whatever clock the
-- sender has.
-- name: waits_for_message
SELECT 1 FROM durable_waits INDEXED BY durable_waits_for_mail
WHERE run = :run AND kind = 'signal' AND name = :name AND (deadline_at IS NULL OR deadline_at >= :at) LIMIT 1;

-- What it waits for has come. Only a suspended run waits: one that is paused looks at its mail when it goes on.
-- name: wake
UPDATE durable_runs SET state = 'pending', due_at = NULL, updated_at = :at, changed = :tick
WHERE no = :run AND state = 'suspended';

-- Taken once: the row says so itself.
-- name: take_message
UPDATE durable_signals SET taken_by = :key WHERE run = :run AND no = :no AND taken_by IS NULL AND error IS NULL;

-- name: set_aside
UPDATE durable_signals SET error = :error WHERE run = :run AND no = :no AND taken_by IS NULL;

-- The oldest message that a wait could still take.
-- name: in_time
SELECT no FROM durable_signals INDEXED BY durable_signals_waiting
WHERE run = :run AND name = :name AND taken_by IS NULL AND error IS NULL AND sent_at <= :deadline LIMIT 1;

-- The question that is stored stays.
-- name: ask
INSERT INTO durable_questions (run, key, name, payload, schema, asked_at, deadline_at)
VALUES (:run, :key, :name, :payload, :schema, :at, :deadline)
ON CONFLICT (run, key) DO NOTHING;

-- name: question
SELECT key, name, payload, schema, asked_at, deadline_at, answer, answered_at, answered_by, closed_at, error
FROM durable_questions WHERE run = :run AND key = :key;

-- All that a suspend point ever asked in a run.
-- name: questions_of
SELECT key, name, payload, schema, asked_at, deadline_at, answer, answered_at, answered_by, closed_at, error
FROM durable_questions WHERE run = :run AND name = :name ORDER BY no;

-- The question that this sender's answer went to before; no key where the answer still waits for its question.
-- name: answered_before
SELECT key FROM durable_questions WHERE run = :run AND dedupe = :dedupe
UNION ALL
SELECT NULL FROM durable_early WHERE run = :run AND dedupe = :dedupe;

-- name: answer
UPDATE durable_questions SET answer = :payload, answered_at = :at, answered_by = :by, dedupe = :dedupe
WHERE run = :run AND key = :key;

-- name: waits_for_answer
SELECT 1 FROM durable_waits WHERE run = :run AND key = :key AND kind = 'question';

-- name: keep_early
INSERT INTO durable_early (run, no, name, sent_at, sent_by, dedupe, payload)
SELECT :run, coalesce(max(no), 0) + 1, :name, :at, :by, :dedupe, :payload FROM durable_early WHERE run = :run;

-- The oldest answer that came before the question.
-- name: first_early
SELECT no, payload, sent_at, sent_by, dedupe FROM durable_early WHERE run = :run AND name = :name ORDER BY no LIMIT 1;

-- name: forget_early
DELETE FROM durable_early WHERE run = :run AND no = :no;

-- name: close_question
UPDATE durable_questions SET closed_at = :at WHERE run = :run AND key = :key AND answer IS NULL AND closed_at IS NULL;

-- The question is open again; the sender of the answer is remembered, so that it is not taken a second time.
-- name: reopen
UPDATE durable_questions SET answer = NULL, answered_at = NULL, answered_by = NULL, error = :error
WHERE run = :run AND key = :key AND answer = :answer;

-- Driving -------------------------------------------------------------------------------------------------------------

-- The oldest pending runs of each workflow: a short walk along the index for each, so that runs of unknown workflows,
-- however many, cost nothing. Up to the limit of each: who gets its turn is decided among all of them.
-- name: claim_pending
SELECT r.updated_at, r.no, r.workflow
FROM json_each(:workflows) AS w
JOIN durable_runs AS r ON r.no IN (
    SELECT p.no FROM durable_runs AS p
    WHERE p.workflow = w.value AND p.state = 'pending' AND p.deaths < 2
    ORDER BY p.updated_at, p.no LIMIT :limit);

-- The same for suspended runs whose time has come.
-- name: claim_due
SELECT r.due_at, r.no, r.workflow
FROM json_each(:workflows) AS w
JOIN durable_runs AS r ON r.no IN (
    SELECT p.no FROM durable_runs AS p
    WHERE p.workflow = w.value AND p.state = 'suspended' AND p.due_at IS NOT NULL AND p.due_at <= :now
    ORDER BY p.due_at, p.no LIMIT :limit);

-- The same for paused runs whose deadline has come. Unlike a suspended one, a paused run may be a suspect.
-- name: claim_paused
SELECT r.due_at, r.no, r.workflow
FROM json_each(:workflows) AS w
JOIN durable_runs AS r ON r.no IN (
    SELECT p.no FROM durable_runs AS p
    WHERE p.workflow = w.value AND p.state = 'paused' AND p.due_at IS NOT NULL AND p.due_at <= :now
        AND (p.deaths >= 2) = :suspects
    ORDER BY p.due_at, p.no LIMIT :limit);

-- The same for runs whose owners keep dying: one, so that it takes no neighbour with it.
-- name: claim_suspect
SELECT r.updated_at, r.no, r.workflow
FROM json_each(:workflows) AS w
JOIN durable_runs AS r ON r.no IN (
    SELECT p.no FROM durable_runs AS p
    WHERE p.workflow = w.value AND p.state = 'pending' AND p.deaths >= 2
    ORDER BY p.updated_at, p.no LIMIT 1);

-- For whoever drives some runs and no others: these, and what their bodies started. Whoever asks has few of them.
-- name: claim_below
WITH RECURSIVE below (no) AS (
    SELECT no FROM durable_runs WHERE id IN (SELECT value FROM json_each(:ids) AS w)
    UNION
    SELECT runs.no FROM below JOIN durable_runs AS runs ON runs.parent = below.no WHERE runs.detached = 0)
SELECT coalesce(r.due_at, r.updated_at), r.no, r.workflow FROM below JOIN durable_runs AS r ON r.no = below.no
WHERE r.workflow IN (SELECT value FROM json_each(:workflows) AS w)
    AND (+r.state = 'pending' OR (+r.state IN ('suspended', 'paused') AND r.due_at <= :now))
    AND (+r.state <> 'suspended' AND r.deaths >= 2) = :suspects
ORDER BY 1, r.no LIMIT :limit;

-- The write lock is held since the look, so nobody was faster: where it matches no row, an index is damaged. A paused run whose deadline has come is not to be paused
-- any more: it is to end.
-- name: take
UPDATE durable_runs SET
    state = 'running', owner = :me, epoch = epoch + 1, due_at = NULL,
    pause_at = NULL, pause_reason = NULL, pause_by = NULL, updated_at = :at, changed = :tick
WHERE no = :run AND (state = 'pending' OR (state IN ('suspended', 'paused') AND due_at <= :at));

-- The same epoch means that nobody has driven it since; pending means that news came for it. One that was paused in this
-- very moment is still to be paused, unless its deadline has come.
-- name: reclaim
UPDATE durable_runs SET
    state = 'running', owner = :me, epoch = epoch + 1, due_at = NULL,
    pause_at = CASE WHEN due_at <= :at THEN NULL ELSE pause_at END,
    pause_reason = CASE WHEN due_at <= :at THEN NULL ELSE pause_reason END,
    pause_by = CASE WHEN due_at <= :at THEN NULL ELSE pause_by END,
    updated_at = :at, changed = :tick
WHERE no = :run AND epoch = :epoch AND state IN ('suspended', 'pending', 'paused')
RETURNING
    CASE WHEN NOT EXISTS (
        SELECT 1 FROM durable_entries AS entries
        WHERE entries.run = :run AND entries.key = :cancel_key) THEN cancel_at END,
    cancel_reason, cancel_by, pause_at, pause_reason, pause_by;

-- One row a step. The hold is checked in the same statement: no row, no right.
-- name: record
INSERT INTO durable_entries (
    run, key, seq, kind, name, digest, outcome, asked, started_at, recorded_at, attempts, removed, payload, checksum
)
SELECT
    no, :key, :seq, :kind, :name, :digest, :outcome, :asked, :started_at, :at, :attempts, :removed, :payload, :checksum
FROM durable_runs WHERE no = :run AND owner = :me AND epoch = :epoch;

-- name: intend
INSERT INTO durable_intents (run, key, name, digest, asked, at)
SELECT no, :key, :name, :digest, :asked, :at FROM durable_runs WHERE no = :run AND owner = :me AND epoch = :epoch
ON CONFLICT (run, key) DO UPDATE SET at = excluded.at;

-- In doubt is what was about to begin and has no outcome.
-- name: doubtful
SELECT name, digest, asked, at FROM durable_intents AS intents
WHERE run = :run AND key = :key
    AND NOT EXISTS (SELECT 1 FROM durable_entries AS entries
        WHERE entries.run = intents.run AND entries.key = intents.key);

-- name: next_seq
SELECT coalesce(max(seq), 0) + 1 FROM durable_entries WHERE run = :run;

-- The decision takes the next place in the run's order.
-- name: decide_value
INSERT INTO durable_entries (
    run, key, seq, kind, name, digest, outcome, asked, started_at, recorded_at, attempts, removed, decided_by, payload,
    checksum)
VALUES (
    :run, :key, :seq, 'step', :name, :digest, 'value', :asked, :began, :at, 1, 0, :by, :payload,
    durable_sum('entry', :run, :key, :seq, 'step', :name, 'value', :asked, :began, :at, 1, 0, :by, :digest, :payload));

-- name: decide_retry
INSERT INTO durable_attempts (run, key, number, started_at, ended_at, next_at, error)
SELECT :run, :key, coalesce(max(number), 0) + 1, :began, :at, :at, :error FROM durable_attempts
WHERE run = :run AND key = :key;

-- name: forget_intent
DELETE FROM durable_intents WHERE run = :run AND key = :key;

-- name: intents
SELECT key, name, digest, asked, at FROM durable_intents WHERE run = :run ORDER BY key;

-- One row a failed attempt, conditional on the hold like any other.
-- name: fail
INSERT INTO durable_attempts (run, key, number, started_at, ended_at, next_at, error)
SELECT no, :key, :number, :started_at, :at, :next_at, :error
FROM durable_runs WHERE no = :run AND owner = :me AND epoch = :epoch;

-- Whether this worker holds the run, what was asked of it, and whether the body was told to end already.
-- name: held
SELECT
    id, deadline_at, EXISTS (SELECT 1 FROM durable_entries AS entries
        WHERE entries.run = runs.no AND key = :cancel_key),
    cancel_at, cancel_reason, cancel_by, pause_at, pause_reason, pause_by
FROM durable_runs AS runs WHERE no = :run AND owner = :me AND epoch = :epoch;

-- name: holds
SELECT 1 FROM durable_runs WHERE no = :run AND owner = :me AND epoch = :epoch;

-- A person accepted that this call is made differently now.
-- name: amend
UPDATE durable_entries SET name = :name, digest = :digest, checksum = durable_sum('entry',
    run, key, seq, kind, :name, outcome, asked, started_at, recorded_at, attempts, removed, decided_by, :digest, payload)
WHERE run = :run AND key = :key;

-- A person accepted that this call is no longer made; the fact that it was made stays.
-- name: remove
UPDATE durable_entries SET removed = 1, checksum = durable_sum('entry',
    run, key, seq, kind, name, outcome, asked, started_at, recorded_at, attempts, 1, decided_by, digest, payload)
WHERE run = :run AND key = :key;

-- name: settle_changes
UPDATE durable_runs SET accept_changes = 0, changed = :tick WHERE no = :run AND owner = :me AND epoch = :epoch;

-- name: report
UPDATE durable_runs SET
    status = :status, progress_done = :done, progress_total = :total, updated_at = :at, changed = :tick
WHERE no = :run AND owner = :me AND epoch = :epoch;

-- What has come for the waits that were written before, those aside that are over now: a message that is wanted, the
-- answer to a question, the end of a run.
-- name: news_of_waits
SELECT EXISTS (
    SELECT 1 FROM durable_waits AS waits INDEXED BY durable_waits_for_mail
    CROSS JOIN durable_signals AS signals INDEXED BY durable_signals_waiting
        ON signals.run = waits.run AND signals.name = waits.name AND taken_by IS NULL AND error IS NULL
        AND (waits.deadline_at IS NULL OR signals.sent_at <= waits.deadline_at)
    WHERE waits.run = :run AND kind = 'signal' AND key NOT IN (SELECT value FROM json_each(:closed) AS w)
) OR EXISTS (
    SELECT 1 FROM durable_waits AS waits INDEXED BY durable_waits_for_mail CROSS JOIN durable_questions AS questions
        ON questions.run = waits.run AND questions.key = waits.key AND answer IS NOT NULL
    WHERE waits.run = :run AND kind = 'question' AND waits.key NOT IN (SELECT value FROM json_each(:closed) AS w)
        AND NOT EXISTS (SELECT 1 FROM durable_entries AS entries
            WHERE entries.run = waits.run AND entries.key = waits.key)
) OR EXISTS (
    SELECT 1 FROM durable_waits AS waits INDEXED BY durable_waits_over
    WHERE waits.run = :run AND over = 1 AND key NOT IN (SELECT value FROM json_each(:closed) AS w));

-- The same for a wait that was not written yet.
-- name: news_of_signal
SELECT 1 FROM durable_signals INDEXED BY durable_signals_waiting
WHERE run = :run AND name = :name AND taken_by IS NULL AND error IS NULL AND (:deadline IS NULL OR sent_at <= :deadline)
LIMIT 1;

-- name: more_signals
SELECT 1 FROM durable_signals INDEXED BY durable_signals_waiting
WHERE run = :run AND name = :name AND no > :heard AND taken_by IS NULL AND error IS NULL LIMIT 1;

-- name: news_of_question
SELECT 1 FROM durable_questions AS questions WHERE run = :run AND key = :key AND answer IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM durable_entries AS entries
        WHERE entries.run = questions.run AND entries.key = questions.key);

-- name: news_of_run
SELECT 1 FROM durable_runs WHERE id = :target AND +state IN ('completed', 'failed', 'cancelled');

-- name: close_wait
DELETE FROM durable_waits WHERE run = :run AND key = :key;

-- The run that is waited for may have ended: one that comes to rest because it is paused does not look.
-- name: open_wait
INSERT INTO durable_waits (run, key, kind, name, since_at, deadline_at, target, over)
VALUES (:run, :key, :kind, :name, :since, :deadline, :target,
    EXISTS (SELECT 1 FROM durable_runs WHERE id = :target AND +state IN ('completed', 'failed', 'cancelled')))
ON CONFLICT (run, key) DO UPDATE SET
    kind = excluded.kind, name = excluded.name, since_at = excluded.since_at, deadline_at = excluded.deadline_at,
    target = excluded.target, over = excluded.over;

-- A run at rest belongs to nobody. That it came this far without killing anyone clears it.
-- name: come_to_rest
UPDATE durable_runs SET
    state = :state, owner = NULL, due_at = :due, deaths = 0, interrupted = :interrupted, updated_at = :at, changed = :tick
WHERE no = :run;

-- name: give_back
UPDATE durable_runs AS runs SET
    state = CASE WHEN pause_at IS NULL THEN 'pending' ELSE 'paused' END, owner = NULL, interrupted = 1,
    due_at = CASE WHEN pause_at IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM durable_entries AS entries
        WHERE entries.run = runs.no AND entries.key = :cancel_key) THEN deadline_at END,
    updated_at = :at, changed = :tick
WHERE no = :run AND owner = :me AND epoch = :epoch;

-- The same in good order: the count of deaths begins anew, and who leaves knows whether anything was in flight.
-- name: leave
UPDATE durable_runs AS runs SET
    state = CASE WHEN pause_at IS NULL THEN 'pending' ELSE 'paused' END, owner = NULL, deaths = 0,
    interrupted = :interrupted,
    due_at = CASE WHEN pause_at IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM durable_entries AS entries
        WHERE entries.run = runs.no AND entries.key = :cancel_key) THEN deadline_at END,
    updated_at = :at, changed = :tick
WHERE no = :run AND owner = :me AND epoch = :epoch;

-- What a dead worker drove.
-- name: orphans
SELECT no, deaths, survived FROM durable_runs WHERE owner = :owner ORDER BY no;

-- More entries than at the last death are progress.
-- name: count_entries
SELECT count(*) FROM durable_entries WHERE run = :run;

-- name: free
UPDATE durable_runs AS runs SET
    state = CASE WHEN pause_at IS NULL THEN 'pending' ELSE 'paused' END, owner = NULL, deaths = :deaths,
    survived = :survived, interrupted = 1,
    due_at = CASE WHEN pause_at IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM durable_entries AS entries
        WHERE entries.run = runs.no AND entries.key = :cancel_key) THEN deadline_at END,
    updated_at = :at, changed = :tick
WHERE no = :run;

-- name: park
UPDATE durable_runs SET
    state = 'parked', reason = :reason, result = :result, ended_at = :at, owner = NULL, interrupted = 1,
    deaths = :deaths, survived = :survived, pause_at = NULL, pause_reason = NULL, pause_by = NULL,
    updated_at = :at, changed = :tick
WHERE no = :run;

-- What cannot be taken to be driven is kept from those who look for runs. There is no error to be stored: only the code that
-- knows the codec could write one.
-- name: quarantine
UPDATE durable_runs SET
    state = 'parked', reason = :reason, result = NULL, ended_at = :at, due_at = NULL, owner = NULL, interrupted = 1,
    pause_at = NULL, pause_reason = NULL, pause_by = NULL, updated_at = :at, changed = :tick
WHERE no = :run;

-- For the message of a refused write only.
-- name: whose
SELECT id, state, owner, epoch FROM durable_runs WHERE no = :run;

-- Reading -------------------------------------------------------------------------------------------------------------

-- The one list of columns; what follows picks rows of it.
-- name: run_select
SELECT
    no, id, uid, workflow, origin, version, state, reason, input, input_digest, result, created_at, updated_at,
    ended_at, due_at, owner, epoch, deaths, accept_changes, cancel_at, cancel_reason, cancel_by,
    deadline_at, deadline_length, interrupted, failed_keys, discarded_at,
    parent, (SELECT p.id FROM durable_runs AS p WHERE p.no = runs.parent), parent_key, detached, deadline_inherited,
    pause_at, pause_reason, pause_by, status, progress_done, progress_total, changed
FROM durable_runs AS runs

-- name: run_count
SELECT count(*) FROM durable_runs

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

-- The one index that leads to what changed, whatever else is asked for: what the others lead to only grows.
-- name: by_change
INDEXED BY durable_runs_by_change

-- name: where_since
changed > :since

-- What changed together comes together: whoever goes on from the last number misses nothing of it.
-- name: where_whole_ticks
changed <= :last

-- name: last_tick
SELECT changed FROM durable_runs

-- name: in_order_of_change
ORDER BY changed, no

-- name: nth
LIMIT 1 OFFSET :offset

-- Those of these runs that have ended; the ids lead to them.
-- name: where_ended
WHERE id IN (SELECT value FROM json_each(:ids) AS w) AND +state IN ('completed', 'failed', 'cancelled') ORDER BY no

-- name: where_tag
no IN (SELECT run FROM durable_run_tags WHERE name = :tag_name AND value = :tag_value)

-- name: newest_first
ORDER BY no DESC LIMIT :limit

-- name: oldest_first
ORDER BY no LIMIT :limit

-- name: tags
SELECT name, value FROM durable_run_tags WHERE run = :run ORDER BY name;

-- The memory of a run in its one order. The key leads to the rows; a run's own entries are sorted in memory, because an
-- index on the order would be a second write for every step.
-- name: entries
SELECT seq, key, kind, name, digest, outcome, payload, asked, started_at, recorded_at, attempts, removed, decided_by
FROM durable_entries WHERE run = :run ORDER BY seq;

-- What all rows of a run should come to.
-- name: sums
SELECT part, number, checksum FROM durable_sums WHERE run = :run;

-- The next runs by number. Of those that are lost, the sums know.
-- name: numbers
SELECT no FROM durable_runs WHERE no > :after ORDER BY no LIMIT :limit;

-- name: numbers_summed
SELECT DISTINCT run FROM durable_sums WHERE run > :after ORDER BY run LIMIT :limit;

-- name: id_of
SELECT id FROM durable_runs WHERE no = :run;

-- name: number_of
SELECT no FROM durable_runs WHERE id = :id;

-- What the journal's own tables look like.
-- name: own_shape
SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE substr(lower(name), 1, 8) = 'durable_' ORDER BY type, name;

-- name: own_tables
SELECT name FROM sqlite_schema WHERE type = 'table' AND substr(lower(name), 1, 8) = 'durable_' ORDER BY name;

-- name: attempts
SELECT key, number, started_at, ended_at, next_at, error FROM durable_attempts WHERE run = :run ORDER BY key, number;

-- name: waits
SELECT key, kind, name, since_at, deadline_at, target FROM durable_waits WHERE run = :run ORDER BY since_at, key;

-- What was not taken, those included that were set aside.
-- name: messages
SELECT no, name, payload, sent_at, dedupe, taken_by, error FROM durable_signals
WHERE run = :run AND taken_by IS NULL ORDER BY no;

-- What may still be taken.
-- name: waiting_messages
SELECT no, name, payload, sent_at, dedupe, taken_by, error FROM durable_signals INDEXED BY durable_signals_waiting
WHERE run = :run AND taken_by IS NULL AND error IS NULL ORDER BY no;

-- name: questions
SELECT key, name, payload, schema, asked_at, deadline_at, answer, answered_at, answered_by, closed_at, error
FROM durable_questions WHERE run = :run ORDER BY no;

-- name: children
SELECT id FROM durable_runs WHERE parent = :run AND +state IN ('pending', 'running', 'suspended', 'paused') ORDER BY no;

-- Answered, and the body was not given it.
-- name: fresh_answers
SELECT key, name, payload, schema, asked_at, deadline_at, answer, answered_at, answered_by, closed_at, error
FROM durable_questions AS questions WHERE run = :run AND answer IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM durable_entries AS entries
        WHERE entries.run = questions.run AND entries.key = questions.key)
ORDER BY no;

-- The open questions lead to their runs, and not the other way: they are few, and their index gives their order.
-- name: question_select
SELECT
    r.id, r.workflow, q.key, q.name, q.payload, q.schema, q.asked_at, q.deadline_at, q.answer, q.answered_at,
    q.answered_by, q.closed_at, q.error
FROM durable_questions AS q CROSS JOIN durable_runs AS r ON r.no = q.run
WHERE q.answer IS NULL AND q.closed_at IS NULL AND r.state NOT IN ('completed', 'cancelled', 'failed', 'parked')

-- name: where_asked_by
q.run = (SELECT no FROM durable_runs WHERE id = :run_id)

-- name: where_asked_in
r.workflow = :workflow

-- name: where_asked_at
q.name = :name

-- name: where_asked_after
q.asked_at >= :after_at AND (q.asked_at, r.id, q.key) > (:after_at, :after_run, :after_key)

-- name: oldest_question_first
ORDER BY q.asked_at, r.id, q.key LIMIT :limit

-- What a worker's own runs may not have heard of: the write may have been another process's.
-- name: news
WITH mine AS (
    SELECT *, CASE WHEN NOT EXISTS (
        SELECT 1 FROM durable_entries AS entries
        WHERE entries.run = runs.no AND entries.key = :cancel_key) THEN cancel_at END AS unheard_at
    FROM durable_runs AS runs WHERE owner = :me)
SELECT no, unheard_at, cancel_reason, cancel_by, pause_at, pause_reason, pause_by FROM mine
WHERE unheard_at IS NOT NULL OR pause_at IS NOT NULL
    OR EXISTS (
        SELECT 1 FROM durable_signals AS signals INDEXED BY durable_signals_waiting
        WHERE signals.run = mine.no AND taken_by IS NULL AND error IS NULL)
    OR EXISTS (
        SELECT 1 FROM durable_questions AS questions
        WHERE questions.run = mine.no AND answer IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM durable_entries AS entries WHERE entries.run = questions.run AND entries.key = questions.key))
    OR EXISTS (
        SELECT 1 FROM durable_waits AS waits INDEXED BY durable_waits_over
        WHERE waits.run = mine.no AND over = 1 AND NOT EXISTS (
            SELECT 1 FROM durable_entries AS entries WHERE entries.run = waits.run AND entries.key = waits.key))
ORDER BY no;

-- name: tick_now
SELECT tick FROM durable_ticks;

-- What stopped since somebody looked; what this worker drives is told otherwise, and is among them all the same.
-- name: stops
SELECT no FROM durable_runs INDEXED BY durable_runs_by_change
WHERE changed > :since AND +state IN ('completed', 'cancelled', 'failed', 'parked');

-- Moves with each commit of another connection; nothing is read besides.
-- name: pulse
PRAGMA data_version;

-- Moves with each commit of another worker, also of one that has signed off since.
-- name: others
SELECT max(
    (SELECT commits FROM durable_ticks), (SELECT coalesce(max(latest), 0) FROM durable_workers WHERE no <> :me)
);

-- The same conditions as in the claims, without the lock that those need.
-- name: ready
SELECT EXISTS (SELECT 1 FROM json_each(:workflows) AS w WHERE
    EXISTS (SELECT 1 FROM durable_runs WHERE workflow = w.value AND state = 'pending')
    OR EXISTS (
        SELECT 1 FROM durable_runs
        WHERE workflow = w.value AND state = 'suspended' AND due_at IS NOT NULL AND due_at <= :now)
    OR EXISTS (
        SELECT 1 FROM durable_runs
        WHERE workflow = w.value AND state = 'paused' AND due_at IS NOT NULL AND due_at <= :now));

-- When to look again: the first end of an index for each workflow and state.
-- name: next_due
SELECT min(due) FROM (
    SELECT (SELECT min(due_at) FROM durable_runs
        WHERE workflow = w.value AND state = 'suspended' AND due_at IS NOT NULL) AS due
    FROM json_each(:workflows) AS w
    UNION ALL
    SELECT (SELECT min(due_at) FROM durable_runs WHERE workflow = w.value AND state = 'paused' AND due_at IS NOT NULL)
    FROM json_each(:workflows) AS w);

-- The same two of some runs and what their bodies started.
-- name: ready_below
WITH RECURSIVE below (no) AS (
    SELECT no FROM durable_runs WHERE id IN (SELECT value FROM json_each(:ids) AS w)
    UNION
    SELECT runs.no FROM below JOIN durable_runs AS runs ON runs.parent = below.no WHERE runs.detached = 0)
SELECT EXISTS (
    SELECT 1 FROM below JOIN durable_runs AS r ON r.no = below.no
    WHERE r.workflow IN (SELECT value FROM json_each(:workflows) AS w)
        AND (+r.state = 'pending' OR (+r.state IN ('suspended', 'paused') AND r.due_at <= :now)));

-- name: next_due_below
WITH RECURSIVE below (no) AS (
    SELECT no FROM durable_runs WHERE id IN (SELECT value FROM json_each(:ids) AS w)
    UNION
    SELECT runs.no FROM below JOIN durable_runs AS runs ON runs.parent = below.no WHERE runs.detached = 0)
SELECT min(r.due_at) FROM below JOIN durable_runs AS r ON r.no = below.no
WHERE r.workflow IN (SELECT value FROM json_each(:workflows) AS w) AND +r.state IN ('suspended', 'paused');

-- What recovery has to know: also of workflows that this process does not know.
-- name: backlog
SELECT workflow, origin, count(*) FROM durable_runs
WHERE state IN ('pending', 'suspended', 'paused')
GROUP BY workflow, origin ORDER BY workflow, origin;

-- The workflows that this process does not know, one look at the index for each name: asked whenever somebody has written.
-- name: strangers
WITH RECURSIVE below (state, workflow) AS (
    SELECT s.value, (SELECT min(workflow) FROM durable_runs WHERE state = s.value)
    FROM json_each('["pending", "suspended", "paused"]') AS s
    UNION ALL
    SELECT
        below.state,
        (SELECT min(r.workflow) FROM durable_runs AS r WHERE r.state = below.state AND r.workflow > below.workflow)
    FROM below WHERE below.workflow IS NOT NULL
)
SELECT workflow, min(origin) FROM (
    SELECT
        below.workflow,
        (SELECT r.origin FROM durable_runs AS r WHERE r.state = below.state AND r.workflow = below.workflow LIMIT 1)
            AS origin
    FROM below WHERE below.workflow IS NOT NULL AND below.workflow NOT IN (SELECT value FROM json_each(:workflows))
) GROUP BY workflow ORDER BY workflow;

-- Transactions of the application -------------------------------------------------------------------------------------

-- What the journal itself has made: nothing else has such a name.
-- name: own_names
SELECT json_group_array(name) FROM sqlite_schema WHERE substr(lower(name), 1, 8) = 'durable_';

-- What the authorizer is not told: the new name of a table that was renamed, and what a reference refers to.
-- name: strays
SELECT name FROM sqlite_schema
WHERE substr(lower(name), 1, 8) = 'durable_' AND name NOT IN (SELECT value FROM json_each(:own) AS w)
UNION ALL
SELECT made.name FROM sqlite_schema AS made JOIN pragma_foreign_key_list(made.name) AS w
WHERE made.type = 'table' AND substr(lower(made.name), 1, 8) <> 'durable_'
    AND substr(lower(w."table"), 1, 8) = 'durable_';

-- name: changes
SELECT changes();

-- A table that gives no number twice has none left after the largest, and SQLite calls that a full disk.
-- name: used_up
SELECT 1 FROM sqlite_sequence WHERE seq = 9223372036854775807;

-- Stats ---------------------------------------------------------------------------------------------------------------

-- Walks along an index of all runs, which is small: neither their payloads nor anything else of them is read.
-- name: count_by_state
SELECT state, count(*) FROM durable_runs INDEXED BY durable_runs_by_state GROUP BY state;

-- Each number comes from an index of just those rows. A run that has ended takes none of its messages any more.
-- name: count_the_rest
SELECT
    (SELECT count(*) FROM durable_runs INDEXED BY durable_runs_letters
        WHERE state IN ('failed', 'parked') AND discarded_at IS NULL),
    (SELECT count(*) FROM durable_runs AS runs CROSS JOIN durable_waits AS waits ON waits.run = runs.no
        WHERE runs.state = 'suspended'),
    (SELECT count(*) FROM durable_questions INDEXED BY durable_questions_open
        WHERE answer IS NULL AND closed_at IS NULL),
    (SELECT count(*) FROM durable_signals AS signals INDEXED BY durable_signals_waiting
        CROSS JOIN durable_runs AS runs ON runs.no = signals.run
        WHERE taken_by IS NULL AND error IS NULL AND runs.state NOT IN ('completed', 'failed', 'cancelled')),
    (SELECT count(*) FROM durable_workers),
    (SELECT min(at) FROM (
        SELECT min(updated_at) AS at FROM durable_runs INDEXED BY durable_runs_pending
            WHERE state = 'pending' AND deaths < 2
        UNION ALL
        SELECT min(updated_at) FROM durable_runs INDEXED BY durable_runs_suspect
            WHERE state = 'pending' AND deaths >= 2)),
    (SELECT min(at) FROM (
        SELECT min(due_at) AS at FROM durable_runs INDEXED BY durable_runs_due
            WHERE state = 'suspended' AND due_at IS NOT NULL
        UNION ALL
        SELECT min(due_at) FROM durable_runs INDEXED BY durable_runs_paused_due
            WHERE state = 'paused' AND due_at IS NOT NULL));
