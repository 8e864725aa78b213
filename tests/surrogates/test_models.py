"""Every surrogate: shapes, what it declares, and that it learns. Then what is special about each."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from headrace.platform.fields import FieldSpec, Grid, Mesh, SampleSchema
from headrace.platform.sample import SampleBatch
from headrace.platform.spec import kinds
from headrace.surrogates.capabilities import Capabilities
from headrace.surrogates.metrics import relative_l2
from headrace.surrogates.models import SURROGATES
from headrace.surrogates.models.fno import FNO
from headrace.surrogates.models.mlp import MLP
from headrace.surrogates.query import Query
from headrace.surrogates.strategies import AllAtOnce, TimeConditioned
from headrace.surrogates.surrogate import AbstractSurrogate

SMALL: Mapping[str, Mapping[str, Any]] = {
    "fno": {"modes": 3, "width": 12, "layers": 2, "projection_width": 16},
    "mlp": {"hidden": (32, 32)},
}
"""Settings that make a kind small enough for tests; a kind that is not named is tested as it comes."""

PLAIN = Capabilities()
TRIANGLE = Mesh(points=np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), cells=np.array([[0, 1, 2]]))

MakeSchema = Callable[..., SampleSchema]


def small(kind: type[AbstractSurrogate]) -> AbstractSurrogate:
    return kind(**SMALL.get(str(kind.model_fields["kind"].default), {}))


def apply(
    network: torch.nn.Module, samples: SampleBatch, capabilities: Capabilities = PLAIN, dtype: str = "float32"
) -> torch.Tensor:
    """What a network says of samples, called with what it declares that it takes."""
    inputs, parameters = (torch.from_numpy(a.astype(dtype)) for a in (samples.inputs, samples.parameters))
    return network(inputs, parameters, query(capabilities, inputs))


def query(capabilities: Capabilities, inputs: torch.Tensor) -> Query:
    count, axes = len(inputs), [(torch.arange(n, dtype=inputs.dtype) + 0.5) / n for n in inputs.shape[2:]]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)
    generator = torch.Generator().manual_seed(0)
    return Query(
        time=torch.full((count,), 0.5, dtype=inputs.dtype) if capabilities.time else None,
        points=points if capabilities.points else None,
        noise=torch.randn(count, capabilities.noise, generator=generator).to(inputs.dtype)
        if capabilities.noise
        else None,
    )


def fitting(can: Capabilities, shape: tuple[int, ...], make_schema: MakeSchema, **options: Any) -> SampleSchema:
    """A schema that a network may be asked to learn: on a grid no smaller than `shape`, as it declares it."""
    grid = tuple(-(-n // can.multiple_of) * can.multiple_of for n in shape)
    if not can.parameters:
        options["num_parameters"] = 0
    return make_schema(grid, periodic=can.boundaries == "periodic", **options)


def shape_of(capabilities: Capabilities) -> tuple[int, ...]:
    """Of a grid that a network may live on: a plane where it can."""
    return (8,) * (2 if 2 in capabilities.dims else capabilities.dims[0])


EVERY_KIND = kinds("headrace.surrogates", SURROGATES).values()
ON_GRIDS = [kind for kind in EVERY_KIND if "grid" in small(kind).capabilities.domains]


@pytest.mark.parametrize("kind", ON_GRIDS)
class TestEverySurrogate:
    """What every network on grids does, of what it declares; those on meshes alone have tests of their own."""

    @pytest.mark.parametrize("shape", [(8,), (9, 8), (7, 8, 9)], ids=["1d", "2d", "3d"])
    @pytest.mark.parametrize("num_parameters", [0, 2])
    def test_says_how_many_weights_it_has_before_it_is_built(
        self, kind: type[AbstractSurrogate], shape: tuple[int, ...], num_parameters: int, make_schema: MakeSchema
    ) -> None:
        spec = small(kind)
        if len(shape) not in spec.capabilities.dims:
            pytest.skip("declares other grids")
        schema = fitting(spec.capabilities, shape, make_schema, num_times=3, num_parameters=num_parameters)
        if (said := spec.num_weights(schema)) is None:
            pytest.skip("does not say")
        assert said == sum(weights.numel() for weights in spec.build(schema).parameters())

    @pytest.mark.parametrize("shape", [(8,), (9, 8), (7, 8, 9)], ids=["1d", "2d", "3d"])
    @pytest.mark.parametrize("num_times", [1, 3])
    @pytest.mark.parametrize("num_parameters", [0, 2])
    def test_output_has_the_schema_s_shape(
        self,
        kind: type[AbstractSurrogate],
        shape: tuple[int, ...],
        num_times: int,
        num_parameters: int,
        make_schema: MakeSchema,
        make_samples: Callable[..., SampleBatch],
    ) -> None:
        surrogate = small(kind)
        can = surrogate.capabilities
        schema = fitting(can, shape, make_schema, num_times=num_times, num_parameters=num_parameters)
        reason = surrogate.mismatch(schema)
        if len(shape) not in can.dims:
            assert reason is not None and f"the samples live in {len(shape)}-D" in reason
            return
        assert reason is None
        samples = make_samples(schema, 2)
        prediction = apply(surrogate.build(schema), samples, can)
        assert prediction.shape == (2, num_times, 1, *schema.domain.shape)
        assert torch.isfinite(prediction).all()

    def test_uses_all_that_it_declares_and_every_weight(
        self, kind: type[AbstractSurrogate], make_schema: MakeSchema, make_samples: Callable[..., SampleBatch]
    ) -> None:
        can = small(kind).capabilities
        schema = fitting(can, shape_of(can), make_schema, num_parameters=2)
        network, samples = small(kind).build(schema), make_samples(schema, 3)
        inputs = torch.from_numpy(samples.inputs)
        parameters = torch.from_numpy(samples.parameters).requires_grad_()
        asked = query(can, inputs)
        taken = [part.requires_grad_() for part in asked if part is not None]
        network(inputs, parameters, asked).square().sum().backward()
        for part in (*taken, *([parameters] if can.parameters else [])):
            assert part.grad is not None and (part.grad != 0).any(dim=0).all()
        if can.parameters:
            assert parameters.grad is not None and (parameters.grad != 0).all()
        # A weight without gradient makes distributed training fail.
        assert all(weight.grad is not None for weight in network.parameters())

    def test_its_state_is_real_and_its_weights_follow_the_seed(
        self, kind: type[AbstractSurrogate], make_schema: MakeSchema
    ) -> None:
        can = small(kind).capabilities
        states = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            states.append(small(kind).build(fitting(can, shape_of(can), make_schema)).state_dict())
        assert all(not tensor.is_complex() for tensor in states[0].values())
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
        assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])

    def test_runs_in_double_precision(
        self, kind: type[AbstractSurrogate], make_schema: MakeSchema, make_samples: Callable[..., SampleBatch]
    ) -> None:
        can = small(kind).capabilities
        schema = fitting(can, (*shape_of(can)[1:], 9), make_schema, num_parameters=1)
        network, samples = small(kind).build(schema), make_samples(schema, 2)
        single = apply(network, samples, can)
        double = apply(network.double(), samples, can, "float64")
        assert double.dtype == torch.float64
        assert torch.allclose(single.double(), double, rtol=1e-4, atol=1e-4)

    def test_overfits_a_few_samples(
        self, kind: type[AbstractSurrogate], make_schema: MakeSchema, make_samples: Callable[..., SampleBatch]
    ) -> None:
        can = small(kind).capabilities
        schema = fitting(can, shape_of(can), make_schema)
        samples = make_samples(schema, 4)
        torch.manual_seed(0)
        network = small(kind).build(schema)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
        truth = torch.from_numpy(samples.outputs)
        for _ in range(120):
            optimizer.zero_grad()
            value = relative_l2(apply(network, samples, can), truth, schema.domain).mean()
            value.backward()
            optimizer.step()
        assert value.item() < 0.05

    def test_does_what_it_declares_about_other_grids(
        self, kind: type[AbstractSurrogate], make_schema: MakeSchema, make_samples: Callable[..., SampleBatch]
    ) -> None:
        can = small(kind).capabilities
        trained = fitting(can, shape_of(can), make_schema)
        own = trained.domain.shape
        assert can.resolution_mismatch(own, own) is None
        if can.resolution == "fixed":
            assert "it was trained on" in (can.resolution_mismatch(tuple(2 * n for n in own), own) or "")
            return
        network = small(kind).build(trained)
        for other in ((16, 16, 16), (15, 11, 9), (5, 4, 6)):
            schema = fitting(can, other[: len(own)], make_schema)
            assert can.resolution_mismatch(schema.domain.shape, own) is None
            found = apply(network, make_samples(schema, 1), can)
            assert found.shape == (1, 1, 1, *schema.domain.shape)

    def test_refuses_what_it_does_not_declare(self, kind: type[AbstractSurrogate], make_schema: MakeSchema) -> None:
        surrogate = small(kind)
        can = surrogate.capabilities
        schema = fitting(can, shape_of(can), make_schema)
        assert surrogate.mismatch(schema) is None
        if can.boundaries != "any":
            other = make_schema(schema.domain.shape, periodic=can.boundaries != "periodic")
            assert "axes" in (surrogate.mismatch(other) or "")
        if can.multiple_of > 1:
            odd = make_schema(tuple(n + 1 for n in schema.domain.shape), periodic=can.boundaries == "periodic")
            assert f"a multiple of {can.multiple_of} points" in (surrogate.mismatch(odd) or "")
        if not can.parameters:
            assert "takes no parameters" in (
                surrogate.mismatch(dataclasses.replace(schema, parameters=(FieldSpec(name="p"),))) or ""
            )
        if not {"mesh", "points"} & set(can.domains):
            assert "the samples live on a mesh" in (
                surrogate.mismatch(dataclasses.replace(schema, domain=TRIANGLE)) or ""
            )


class TestCapabilities:
    CASES = (
        (Capabilities(dims=(2,)), {"shape": (8,)}, "net works in 2-D, the samples live in 1-D"),
        (Capabilities(dims=(1, 3)), {"shape": (8, 8)}, "net works in 1-D, 3-D, the samples live in 2-D"),
        (Capabilities(domains=("mesh",)), {"shape": (8,)}, "net needs mesh, the samples live on a grid"),
        (Capabilities(boundaries="periodic"), {"shape": (8,)}, "net needs all axes periodic, axis 0 is not"),
        (
            Capabilities(boundaries="walls"),
            {"shape": (8,), "periodic": True},
            "net needs all axes with ends, axis 0 is periodic",
        ),
        (
            Capabilities(multiple_of=4),
            {"shape": (8, 6)},
            "net needs a multiple of 4 points along every axis, axis 1 has 6",
        ),
        (
            Capabilities(parameters=False),
            {"shape": (8,), "num_parameters": 2},
            "net takes no parameters, the samples depend on p0, p1",
        ),
    )

    @pytest.mark.parametrize(("can", "options", "words"), CASES)
    def test_a_problem_beyond_them_is_refused_in_a_sentence(
        self, can: Capabilities, options: dict[str, Any], words: str, make_schema: MakeSchema
    ) -> None:
        assert can.mismatch("net", make_schema(**options)) == words
        assert Capabilities().mismatch("net", make_schema(**options)) is None

    def test_the_dimension_of_a_mesh_is_that_of_its_points(self, make_schema: MakeSchema) -> None:
        schema = dataclasses.replace(make_schema((3,)), domain=TRIANGLE)
        assert Capabilities(domains=("mesh",), dims=(2,)).mismatch("net", schema) is None
        words = "net works in 3-D, the samples live in 2-D"
        assert Capabilities(domains=("mesh",), dims=(3,)).mismatch("net", schema) == words

    def test_other_grids_are_refused_as_declared(self) -> None:
        assert Capabilities(resolution="free").resolution_mismatch((5, 7), (8, 8)) is None
        words = Capabilities(resolution="free", multiple_of=4).resolution_mismatch((12, 10), (8, 8))
        assert words == "a multiple of 4 along every axis of the grid"

    def test_they_are_one_line(self) -> None:
        assert str(FNO().capabilities) == "1-D, 2-D, 3-D; grid; any resolution; takes parameters"
        assert str(Capabilities(dims=(2,), multiple_of=8, boundaries="periodic", history=3, time=True, noise=4)) == (
            "2-D; grid; the resolution it was trained on, a multiple of 8; periodic; 3 states of the past; "
            "takes parameters, time, noise"
        )


@pytest.mark.parametrize(
    ("can", "words"),
    [
        (Capabilities(time=True), "it wants to be told the time of the prediction, which strategy direct does not do"),
        (Capabilities(history=3), "it wants to see 3 states of the past, strategy direct gives 1"),
    ],
)
def test_a_network_that_wants_more_than_a_strategy_gives_is_refused(can: Capabilities, words: str) -> None:
    assert AllAtOnce().network_mismatch(can) == words
    assert AllAtOnce().network_mismatch(PLAIN) is None
    assert TimeConditioned().network_mismatch(Capabilities(time=True)) is None


class TestFNO:
    def test_on_a_periodic_box_it_commutes_with_translations(
        self, make_schema: MakeSchema, make_samples: Callable[..., SampleBatch]
    ) -> None:
        schema = make_schema((9, 8), periodic=True)
        torch.manual_seed(0)
        network = small(FNO).build(schema).double()
        inputs = torch.from_numpy(make_samples(schema, 2).inputs).double()
        shifted = network(inputs.roll((2, 3), (2, 3)), torch.zeros(2, 0).double())
        assert torch.allclose(shifted, network(inputs, torch.zeros(2, 0).double()).roll((2, 3), (3, 4)), atol=1e-12)

    def test_converges_under_refinement_of_a_smooth_input(self, make_schema: MakeSchema) -> None:
        torch.manual_seed(0)
        network = small(FNO).build(make_schema((8, 8), periodic=True)).double()

        def at(n: int) -> torch.Tensor:
            x = torch.arange(n, dtype=torch.float64) / n * 2 * torch.pi
            field = torch.sin(x)[:, None] * torch.cos(x)[None]
            with torch.no_grad():
                return network(torch.stack([field, field])[None], torch.zeros(1, 0).double())[0, 0, 0]

        finest = at(128)
        errors = [(at(n) - finest[:: 128 // n, :: 128 // n]).abs().max().item() for n in (8, 16, 32)]
        # The gelu's aliasing decays faster than any power of n for a smooth field.
        assert all(fine < coarse / 8 for coarse, fine in itertools.pairwise(errors))

    def test_padding_keeps_the_shape_and_periodic_axes_get_none(
        self, make_schema: MakeSchema, make_samples: Callable[..., SampleBatch]
    ) -> None:
        spec = FNO(modes=3, width=4, layers=1, padding=0.25)
        for periodic in (False, True):
            schema = make_schema((8, 9), periodic=periodic)
            torch.manual_seed(0)
            padded = apply(spec.build(schema), make_samples(schema, 2))
            torch.manual_seed(0)
            plain = apply(spec.model_copy(update={"padding": 0.0}).build(schema), make_samples(schema, 2))
            assert padded.shape == plain.shape == (2, 1, 1, 8, 9)
            assert torch.equal(padded, plain) == periodic

    @pytest.mark.parametrize(
        ("spec", "shape", "words"),
        [
            (FNO(modes=40), (32, 32), "modes 40 is too large for axis 0 of a 32x32 grid: the largest that fits is 16"),
            (FNO(modes=9), (85, 15), "modes 9 is too large for axis 1 of a 85x15 grid: the largest that fits is 8"),
            (
                FNO(modes=(8, 20)),
                (64, 32),
                "modes 20 is too large for axis 1 of a 64x32 grid: the largest that fits is 16",
            ),
            (FNO(modes=(8, 8)), (64,), "modes has 2 entries, the grid 64 has 1 axes"),
        ],
    )
    def test_modes_that_do_not_fit_are_named_with_the_largest_that_do(
        self, spec: FNO, shape: tuple[int, ...], words: str, make_schema: MakeSchema
    ) -> None:
        reason = spec.mismatch(make_schema(shape))
        assert reason is not None and reason.startswith(words)
        with pytest.raises(ValueError, match="modes"):
            spec.build(make_schema(shape))

    def test_the_largest_modes_that_fit_do(self, make_schema: MakeSchema) -> None:
        assert FNO(modes=16).mismatch(make_schema((32, 33))) is None
        assert FNO(modes=8).mismatch(make_schema((15, 15))) is None


class TestMLP:
    @pytest.mark.parametrize("activation", ["gelu", "relu", "silu", "tanh"])
    def test_it_is_the_matrices_and_activations_that_it_says(
        self, activation: str, make_schema: MakeSchema, make_samples: Callable[..., SampleBatch]
    ) -> None:
        schema = make_schema((3, 4), num_times=2, num_parameters=1)
        network = MLP(hidden=(5, 6), activation=activation).build(schema).double()  # type: ignore[arg-type]
        samples = make_samples(schema, 3)
        inputs, parameters = (torch.from_numpy(a).double() for a in (samples.inputs, samples.parameters))
        first, second, last = (layer for layer in network.modules() if isinstance(layer, torch.nn.Linear))
        act = getattr(torch.nn.functional, activation)
        h = torch.cat([parameters, inputs.reshape(3, -1)], dim=1)
        h = act(h @ first.weight.T + first.bias)
        h = act(h @ second.weight.T + second.bias)
        expected = (h @ last.weight.T + last.bias).reshape(3, 2, 1, 3, 4)
        assert torch.allclose(network(inputs, parameters), expected, rtol=1e-12)

    def test_scalars_alone_make_fields(self) -> None:
        schema = SampleSchema(
            inputs=(),
            outputs=(FieldSpec(name="u"),),
            parameters=(FieldSpec(name="wall", components=4), FieldSpec(name="t")),
            domain=Grid(shape=(4, 4), extent=(1.0, 1.0), periodic=(False, False)),
        )
        network = MLP(hidden=(8,)).build(schema)
        assert network(torch.zeros(2, 0, 4, 4), torch.rand(2, 5)).shape == (2, 1, 1, 4, 4)
        assert sum(weight.numel() for weight in network.parameters()) == (5 + 1) * 8 + (8 + 1) * 16

    def test_samples_that_are_all_alike_are_refused(self, make_schema: MakeSchema) -> None:
        schema = dataclasses.replace(make_schema((4, 4)), inputs=())
        reason = MLP().mismatch(schema)
        assert reason is not None and "neither" in reason
        with pytest.raises(ValueError, match="neither"):
            MLP().build(schema)
