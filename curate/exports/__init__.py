"""`clipmill export`: latents as Parquet, clips as MP4 files or as shards of them. Imports catalog and shards."""
