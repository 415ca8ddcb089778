"""The shards of a catalog: which there are, whether they are whole, and what they hold as Parquet."""
