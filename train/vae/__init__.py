"""Training of a VAE: losses, discriminator, loop, what it is worth."""
