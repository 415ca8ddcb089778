"""Batches as a loader gives them, their normalized latents, and the conditions that a network is given for them."""
