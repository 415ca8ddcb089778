"""The command line: one file for each group of commands; arguments in, one call out. May import all of curate."""
