"""Data sets for others: samples become named arrays of a file, and a layout says how they are read back."""
