"""Time-dependent equations: what they have in common, and how they are stepped."""
