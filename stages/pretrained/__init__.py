"""Pretrained models: finds them on disk or on a hub, identifies their weights, runs OpenCLIP. Imports no other room."""
