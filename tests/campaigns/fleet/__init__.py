"""Many processes on one journal, killed, stopped and let race: what they leave behind is judged from outside.

`deeds` are the workflows and what each run must come to, `trace` notes in a log outside the journal what processes do,
`member` is the life of one process, `herd` starts, kills and stops such processes from a parent that never opens the
journal, `fleet` and `zombies` say how, `races` lets processes do one thing at the same moment, `checker` reads log and
journal, `mutants` break one rule each, and `campaign` counts.
"""
