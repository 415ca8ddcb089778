"""The sections of an audit: each file turns a subject into figures; `registry.py` lists them in their order."""
