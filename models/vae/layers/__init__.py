"""What the causal VAE is made of: convolutions, blocks, the linear shortcut and the quantizers."""
