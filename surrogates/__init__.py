"""Networks that learn what the solvers compute, and how they are trained. Knows no Ray and no solver.

What may be imported from here stands in `__init__.pyi`; each is loaded when it is asked for.

Example:
    >>> from headrace.platform.fields import FieldSpec, Grid, SampleSchema
    >>> from headrace.surrogates import FNO
    >>> square = Grid(shape=(32, 32), extent=(1.0, 1.0), periodic=(False, False))
    >>> schema = SampleSchema(inputs=(FieldSpec(name="a"),), outputs=(FieldSpec(name="u"),), domain=square)
    >>> FNO(modes=40).mismatch(schema)
    'modes 40 is too large for axis 0 of a 32x32 grid: the largest that fits is 16, half the points'
    >>> network = FNO(modes=12, width=32).build(schema)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
