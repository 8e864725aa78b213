"""Networks that learn what the solvers compute, and how they are trained. Knows no Ray and no solver."""
