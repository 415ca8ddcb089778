"""What both transformers are made of: attention blocks, conditions and rotary positions."""
