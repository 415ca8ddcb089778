"""The settings of a training run, as its config file has them; no torch here."""
