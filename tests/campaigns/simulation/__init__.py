"""Several engines on one journal file, in virtual time, through every trouble of the storage and of their processes.

Everything is the engine's own, down to its SQL in a real file: the writer with its batches and its doubt after a failed COMMIT,
the reader, the lease's keeper, the locks on side files. What is replaced is what has a time of its own, so that a seed repeats
a case exactly: each thread is a queue in virtual time (`threads`), each process an event loop that turns when the world lets it
(`processes`), the polls are scaled to a short lease. `errands` says what runs do, `cases` what chance decides, `storage` breaks
what a connection does, `world` plays a case tick by tick, `checker` looks after each, `mutants` break one rule each, and
`campaign` counts.

A tick is one turn of one process's loop, or one hop to one of its threads. So crashes and pauses come between turns and hops
and at the named failpoints within, and a batch is written without others in between; any instruction, the locks of SQLite
under threads, steps in threads and what a power cut leaves on the disk belong to other campaigns.
"""
