"""Recipes: pipelines.yaml loaded and checked, the registry of stages, and the plan of a run."""
