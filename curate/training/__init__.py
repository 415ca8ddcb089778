"""`clipmill train`: what a run learns from, and what it leaves to look at."""
