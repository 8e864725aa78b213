"""Geometries, forms, DOLFINx."""
