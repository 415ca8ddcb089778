"""Croissant, datasheet and EU summary of an audit. They read its figures and a settings file, never a catalog."""
