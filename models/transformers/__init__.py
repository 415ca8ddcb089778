"""The diffusion transformer (DiT), the token transformer, and the FLOPs of both."""
