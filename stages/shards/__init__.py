"""Shards: tars of latents with their contract in front and an index beside them."""
