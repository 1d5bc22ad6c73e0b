"""Commits and checkpoints of several processes at once, many thousand times, and then: is anything damaged or missing?

SQLite before 3.51.3 can damage a database where one connection begins the WAL anew while another goes on from what it knows
of it. The rules that keep clear of that (no PASSIVE checkpoints, no memory map, see `checkpoints.py`) are tried here on the
SQLite that is linked. With `--careless` they are broken on purpose: then damage is known to happen on such builds, and is told.
"""
