"""Networks in torch alone: the causal video VAE, the diffusion transformer and the token transformer."""
