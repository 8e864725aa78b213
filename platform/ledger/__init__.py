"""Which samples are planned, leased, stored."""
