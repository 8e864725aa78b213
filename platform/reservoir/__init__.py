"""The buffer between solvers and trainer."""
