"""Clips as MP4: copied where the span allows it, else encoded; the writer of all MP4. Imports decode, windows."""
