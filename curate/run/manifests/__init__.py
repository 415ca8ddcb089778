"""Manifests: CSV, JSONL and Parquet files that list sources, their columns typed over the whole file."""
