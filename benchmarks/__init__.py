"""Measurements of the library beside bare SQLite at the same durability: `python -m benchmarks`."""
