"""SDIRK3: an implicit Runge-Kutta method of third order whose stages are systems of one form.

Source: Alexander (1977), "Diagonally implicit Runge-Kutta methods for stiff O.D.E.'s", SIAM J. Numer. Anal. 14, Theorem
5: three stages, of order 3, L-stable, and the last stage is the step.
"""

import math

# The root of x³ - 3 x² + 3/2 x - 1/6 = 0 between 1/6 and 1/2, by Viète's formula.
DIAGONAL = 1.0 + math.sqrt(2.0) * math.cos((math.acos(math.sqrt(8.0) / 3.0) - 2.0 * math.pi) / 3.0)
"""γ: a stage of a step h solves u - γ h G(u) = known."""
_SECOND = 0.5 * (1.0 + DIAGONAL)
TIMES = (DIAGONAL, _SECOND, 1.0)
"""When the stages are, in steps."""
WEIGHTS: tuple[tuple[float, ...], ...] = (
    (),
    (_SECOND - DIAGONAL,),
    (
        -(6.0 * DIAGONAL**2 - 16.0 * DIAGONAL + 1.0) / 4.0,
        (6.0 * DIAGONAL**2 - 20.0 * DIAGONAL + 5.0) / 4.0,
    ),
)
"""What of the slopes of earlier stages is known in each."""
