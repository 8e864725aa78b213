"""What is asked: config, sections, checks, faults, catalogue."""
