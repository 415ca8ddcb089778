"""The causal 3D VAE: video to latents and back, whole or in chunks, and its start from a 2D one."""
