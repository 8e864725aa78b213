"""What may be chosen of a finite-volume scheme on cells: its boundary and its limiter."""

from typing import Literal

Boundary = Literal["periodic", "wall", "outflow"]


Limiter = Literal["minmod", "van_leer", "mc"]
