"""What a VAE is trained to make small: reconstruction, perceptual and adversarial terms."""
