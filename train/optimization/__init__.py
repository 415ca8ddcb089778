"""What is done with gradients and weights: the average of weights."""
