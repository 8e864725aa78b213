"""Telling it: record, words, pictures, report, status, dashboard."""
