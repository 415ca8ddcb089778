"""Sources that lie inside tar, zip and Parquet files: their URIs, where their bytes are, and reading them there.

Imports nothing else of `stages.decode` but `reading`.
"""
