"""The states of a sample, as the ledger's file has them (see the indices of `file.py`)."""

FREE, LEASED, STORED, FAILED = range(4)
