"""The actors, and how they wait for each other."""
