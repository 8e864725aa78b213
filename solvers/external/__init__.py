"""Programs in any language that make samples, one run or one request a sample (see docs/external_solvers.md)."""
