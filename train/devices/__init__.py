"""Processes and devices: ranks, sharded weights, and how fast a device is."""
