"""Equations and how they are solved.

What may be imported from here stands in `__init__.pyi`; each is loaded when it is asked for.

Example:
    >>> from headrace.solvers import Darcy, solve
    >>> problem = Darcy(resolution=65)
    >>> system = problem.discretize(problem.draw(0))
    >>> solve(system, rtol=1e-8).status
    <SolveStatus.converged: 'converged'>
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
