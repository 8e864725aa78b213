"""Networks that learn what the solvers compute, and how they are trained. Knows no Ray and no solver.

Example:
    >>> from headrace.platform.fields import FieldSpec, Grid, SampleSchema
    >>> from headrace.surrogates import FNO
    >>> square = Grid(shape=(32, 32), extent=(1.0, 1.0), periodic=(False, False))
    >>> schema = SampleSchema(inputs=(FieldSpec(name="a"),), outputs=(FieldSpec(name="u"),), domain=square)
    >>> FNO(modes=40).mismatch(schema)
    'modes 40 is too large for axis 0 of a 32x32 grid: the largest that fits is 16, half the points'
    >>> network = FNO(modes=12, width=32).build(schema)
"""

from headrace.surrogates.checkpoint import Predictor
from headrace.surrogates.losses import LOSSES, AbstractLoss, RelativeH1, RelativeL2
from headrace.surrogates.models import FNO, MLP, SURROGATES
from headrace.surrogates.surrogate import AbstractSurrogate
from headrace.surrogates.training import TrainingSpec

__all__ = [
    "LOSSES",
    "MLP",
    "SURROGATES",
    "AbstractLoss",
    "AbstractSurrogate",
    "FNO",
    "Predictor",
    "RelativeH1",
    "RelativeL2",
    "TrainingSpec",
]
