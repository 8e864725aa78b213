"""Ray: connect, fit, submit, training ranks."""
