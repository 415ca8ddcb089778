"""The training loop of the transformers, its tasks and its validation."""
