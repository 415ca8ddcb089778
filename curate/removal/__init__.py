"""Taking things out for good, and telling what saw them: purge. May import catalog, shards, datasets, loader."""
