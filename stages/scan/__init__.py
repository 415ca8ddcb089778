"""The decode pass: one decode of a source gives its cuts, signals, thumbnails and sampled frames."""
