-- Many processes on one journal: a worker's lease, and what prunes a journal.
--
-- A worker has its lease for as long as its counters move. Whoever waits for it to end measures on a clock of its own,
-- so the times in here are for people: no decision is made by them.

-- Which start of which machine it runs on: elsewhere, the lock on its side file says nothing.
ALTER TABLE durable_workers ADD COLUMN host TEXT NOT NULL DEFAULT '';
-- How long its counters may stand still before others may take its runs, in microseconds.
ALTER TABLE durable_workers ADD COLUMN lease INTEGER NOT NULL DEFAULT 15000000 CHECK (lease > 0);
-- How often the lease was renewed while nothing else was written. `batch` renews it too.
ALTER TABLE durable_workers ADD COLUMN beats INTEGER NOT NULL DEFAULT 0 CHECK (beats >= 0);
-- When it was last renewed so.
ALTER TABLE durable_workers ADD COLUMN beat_at INTEGER;
-- When its event loop had last turned by then: a worker that hangs renews its lease, and does nothing.
ALTER TABLE durable_workers ADD COLUMN ticked_at INTEGER;

-- Serves the pruning of runs that ended long ago.
CREATE INDEX durable_runs_ended ON durable_runs (ended_at) WHERE ended_at IS NOT NULL;
