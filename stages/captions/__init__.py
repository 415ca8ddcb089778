"""Captions of clips, from the manifest, a model in this process or a server, and an audit of what they say."""
