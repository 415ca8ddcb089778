"""Shards: tars of latents with their contract first and an index beside them. Imports no other room."""
