"""Concepts among the clips of a catalog."""
