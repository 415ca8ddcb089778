"""`encode:` clips to latents of a VAE, and captions to embeddings of their text, in shards."""
