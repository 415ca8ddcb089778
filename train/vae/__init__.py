"""Training of a VAE: its loop, its data and what it is worth."""
