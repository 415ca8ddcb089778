"""Processes and devices: ranks, sharded weights, the dtype of matrix products, and how fast a device is."""
