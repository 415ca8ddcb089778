"""The command line: arguments in, one call out. Each command imports what it needs when it runs."""
