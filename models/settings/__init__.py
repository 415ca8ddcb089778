"""What can be chosen about each network, checked; no torch here, so that settings are read before it loads."""
