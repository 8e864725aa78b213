"""Sorting, solving in a row."""
