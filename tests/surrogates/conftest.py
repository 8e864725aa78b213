"""Array shapes are checked at run time in these tests; and small problems to learn."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook

from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.sample import Provenance, SampleBatch

install_import_hook("headrace.surrogates", "beartype.beartype")
torch.set_num_threads(1)

LEVELS = ("smooth", "rough")


@pytest.fixture(scope="session")
def make_schema() -> Callable[..., SampleSchema]:
    """Makes a schema with inputs permeability and source, and output pressure."""

    def make(
        shape: tuple[int, ...] = (16, 16), *, num_times: int = 1, num_parameters: int = 0, periodic: bool = False
    ) -> SampleSchema:
        return SampleSchema(
            inputs=(FieldSpec(name="permeability"), FieldSpec(name="source")),
            outputs=(FieldSpec(name="pressure"),),
            parameters=tuple(FieldSpec(name=f"p{i}") for i in range(num_parameters)),
            domain=Grid(shape=shape, extent=(1.0,) * len(shape), periodic=(periodic,) * len(shape)),
            times=tuple(float(t) for t in range(num_times)),
        )

    return make


@pytest.fixture(scope="session")
def make_samples() -> Callable[..., SampleBatch]:
    """Makes samples of a schema: the output is 3 + 2 permeability - source / 2, of smooth random fields."""

    def make(schema: SampleSchema, count: int, seed: int = 0) -> SampleBatch:
        rng = np.random.default_rng(seed)
        shape = schema.domain.shape
        spectrum = np.zeros((count, schema.num_input_channels, *shape))
        low = tuple(slice(0, min(4, n)) for n in shape)
        spectrum[(slice(None), slice(None), *low)] = rng.standard_normal(
            spectrum[(slice(None), slice(None), *low)].shape
        )
        inputs = np.fft.fftn(spectrum, axes=range(2, 2 + len(shape))).real.astype(np.float32)
        outputs = 3 + 2 * inputs[:, None, :1] - inputs[:, None, 1:] / 2
        return SampleBatch(
            indices=np.arange(count),
            inputs=inputs,
            outputs=np.repeat(outputs, len(schema.times), axis=1),
            parameters=rng.random((count, schema.num_parameters), dtype=np.float32),
            provenance=tuple(_provenance(index) for index in range(count)),
        )

    return make


def _provenance(index: int) -> Provenance:
    return Provenance(
        spec_hash="0" * 16,
        seed=0,
        index=index,
        level=LEVELS[index % len(LEVELS)],
        solver="direct",
        status="converged",
        relative_residual=1e-12,
        num_iterations=0,
        wall_seconds=0.001,
        cpu_seconds=0.001,
        version="0",
    )
