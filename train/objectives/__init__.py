"""What is learned: noise paths, predictions, weightings, times, and masks of given latents."""
