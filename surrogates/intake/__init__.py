"""Data that others made: named arrays and a layout become samples."""
