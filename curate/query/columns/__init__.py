"""What every column is and which stage makes it: `clipmill columns`, and what is said of a name that is not there."""
