"""Duplicates among the clips of a catalog: exact, near and semantic."""
