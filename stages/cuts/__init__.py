"""Finds where clips begin and end: hard cuts, fades and cross-fades, from downscaled frames. Imports no other room."""
