"""Datasets for training: SQL selections of encoded clips, frozen as small files. `files` needs only numpy, pyarrow."""
