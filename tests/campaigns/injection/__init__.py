"""Faults at each write and sync of a process: errors once and for ever, and kills, made by the system and not by a stand-in.

`program` is the process, on the engine and with the log of the fleet, `trials` runs it under `strace` and judges what it
leaves, and `campaign` counts.
"""
