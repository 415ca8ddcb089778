"""Figures of what is in a catalog, what was lost and why, each beside its SQL. May import all of curate but cli."""
