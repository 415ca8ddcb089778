"""Stages that judge all clips together: duplicates and clusters."""
