"""Random damage to a journal's files: each ends as the same data or as a named report, and none is silent."""
