"""Datasets: selections of encoded clips, frozen for training."""
