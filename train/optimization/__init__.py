"""The optimizer with its learning rate, and the average of the weights."""
