"""The roof: configuration, the command line, and what it runs."""
