"""Stand-ins for torch's types are checked like them, and import nothing."""

import subprocess
import sys

LIGHT = """
import sys
from jaxtyping import Float, jaxtyped
from beartype import beartype
from headrace.platform.lazy_torch import Tensor, nn, torch

@jaxtyped(typechecker=beartype)
def mean(values: Float[Tensor, "rows columns"], network: nn.Module | None = None) -> Float[Tensor, " columns"]:
    return values.mean(0)

assert not isinstance(1.0, Tensor)
assert "torch" not in sys.modules, "an annotation imported it"

import torch as library

assert torch.float32 is library.float32
assert isinstance(library.ones(1), Tensor) and not isinstance(1.0, Tensor)
assert isinstance(nn.Linear(1, 1), nn.Module) and not isinstance(library.ones(1), nn.Module)
assert mean(torch.ones(3, 2), nn.Linear(1, 1)).shape == (2,)
for wrong in ([torch.ones(3)], [torch.ones(3, 2, dtype=torch.int64)], [torch.ones(3, 2), 1]):
    try:
        mean(*wrong)
    except Exception:
        continue
    raise SystemExit(f"{wrong} was taken")
"""


def test_annotations_import_nothing_and_are_checked() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
