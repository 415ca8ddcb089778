"""Decoding: safe readers, the killable child process, frames of a whole source or of single clips."""
