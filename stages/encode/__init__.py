"""The stage `encode:` clips to latents, captions to embeddings, in shards. Imports decode, windows, shards, models."""
