"""Doing it: session, online, generate, train, evaluate, resume."""
