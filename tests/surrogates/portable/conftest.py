"""Small trained surrogates to export, and one that is compiled once for all tests that call it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch._inductor.config

from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.surrogates.checkpoint import Checkpoint, save_checkpoint
from headrace.surrogates.models import FNO
from headrace.surrogates.normalization import NormalizationSpec
from headrace.surrogates.normalizer import Normalizer
from headrace.surrogates.portable import conversions
from headrace.surrogates.portable.export import Exported, export_model
from headrace.surrogates.strategies import Autoregressive
from headrace.surrogates.strategy import AbstractStrategy
from headrace.surrogates.surrogate import AbstractSurrogate

Make = Callable[..., Path]


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes the checkpoint file of a surrogate as if trained, with scales that are far from 0 and 1."""

    def make(
        network: AbstractSurrogate,
        strategy: AbstractStrategy,
        grid: tuple[int, ...],
        *,
        num_times: int = 3,
        num_parameters: int = 2,
        with_fields: bool = True,
    ) -> Path:
        schema = SampleSchema(
            inputs=(FieldSpec(name="u", unit="m/s"), FieldSpec(name="k"))[: 2 if with_fields else 0],
            outputs=(FieldSpec(name="u", unit="m/s"),),
            parameters=(FieldSpec(name="nu"), FieldSpec(name="c"))[:num_parameters],
            domain=Grid(shape=grid, extent=(2.0,) * len(grid), periodic=(True, *(False for _ in grid[1:]))),
            times=tuple(0.25 * (i + 1) for i in range(num_times)),
        )
        spec = NormalizationSpec(log=("k",) if with_fields else ())
        seen = strategy.network_schema(schema, network.capabilities)
        normalizer = Normalizer(spec, seen)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            built = network.build(seen)
            moments = (normalizer.input_moments, normalizer.output_moments, normalizer.parameter_moments)
            for place, one in enumerate(moments):
                one.update(torch.randn(40, len(one.mean)) * (0.5 + place) + 1.0)
        checkpoint = Checkpoint(
            step=7,
            surrogate=network,
            normalization=spec,
            strategy=strategy,
            training={},
            schema=schema,
            weights=built.state_dict(),
            moments=normalizer.state_dict(),
            optimizer={},
            schedule={},
        )
        path = tmp_path_factory.mktemp("checkpoint") / "last.pt"
        save_checkpoint(path, checkpoint)
        return path

    return make


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A checkpoint, and the folder with the model that was compiled from it."""

    checkpoint: Path
    folder: Path
    exported: Exported


@pytest.fixture(scope="session")
def compiled(make_checkpoint: Make, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """A forecast with fields and parameters, as a library."""
    if conversions.compiler() is None:
        pytest.skip("no C++ compiler")
    checkpoint = make_checkpoint(FNO(modes=3, width=8, layers=1, projection_width=8), Autoregressive(), (8, 7))
    folder = tmp_path_factory.mktemp("compiled") / "model"
    with pytest.MonkeyPatch.context() as patch:
        # Compiled in half the time.
        patch.setattr(torch._inductor.config.aot_inductor, "compile_wrapper_opt_level", "O0")
        return Compiled(checkpoint, folder, export_model(checkpoint, "aoti", folder))
