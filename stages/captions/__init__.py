"""Captions of clips from a manifest, a model in this process or a server, and an audit of their texts."""
