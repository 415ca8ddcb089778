"""Networks on disk: a folder with config.json and model.safetensors, and the hash that identifies it."""
