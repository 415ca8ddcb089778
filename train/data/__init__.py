"""Batches as a loader gives them, and what a network is told of their clips."""
