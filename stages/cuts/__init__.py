"""Finds where clips begin and end: hard cuts, fades and cross-fades, from downscaled frames.

Imports no other room but `pretrained`, which finds the weights of the one detector that is a network.
"""
