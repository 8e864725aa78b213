"""Every surrogate: shapes, what it declares, and that it learns. Then what is special about each."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.sample import SampleBatch
from headrace.surrogates.losses import RelativeL2
from headrace.surrogates.models import SURROGATES
from headrace.surrogates.models.fno import FNO
from headrace.surrogates.models.mlp import MLP
from headrace.surrogates.surrogate import AbstractSurrogate

SMALL: Mapping[str, Mapping[str, Any]] = {
    "fno": {"modes": 3, "width": 12, "layers": 2, "projection_width": 16},
    "mlp": {"hidden": (32, 32)},
}
"""Settings that make a kind small enough for tests; a kind that is not named is tested as it comes."""

MakeSchema = Callable[..., SampleSchema]


def small(kind: type[AbstractSurrogate]) -> AbstractSurrogate:
    return kind(**SMALL.get(str(kind.model_fields["kind"].default), {}))


def apply(network: torch.nn.Module, samples: SampleBatch) -> torch.Tensor:
    return network(torch.from_numpy(samples.inputs), torch.from_numpy(samples.parameters))


@pytest.mark.parametrize("kind", SURROGATES)
class TestEverySurrogate:
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
        schema = make_schema(shape, num_times=num_times, num_parameters=num_parameters)
        surrogate = small(kind)
        assert surrogate.mismatch(schema) is None
        samples = make_samples(schema, 2)
        prediction = apply(surrogate.build(schema), samples)
        assert prediction.shape == (2, num_times, 1, *shape)
        assert torch.isfinite(prediction).all()

    def test_uses_every_parameter_of_the_problem_and_every_weight(
        self, kind: type[AbstractSurrogate], make_schema: MakeSchema, make_samples: Callable[..., SampleBatch]
    ) -> None:
        schema = make_schema((8, 8), num_parameters=2)
        network, samples = small(kind).build(schema), make_samples(schema, 3)
        parameters = torch.from_numpy(samples.parameters).requires_grad_()
        network(torch.from_numpy(samples.inputs), parameters).square().sum().backward()
        assert parameters.grad is not None and (parameters.grad != 0).all()
        # A weight without gradient makes distributed training fail.
        assert all(weight.grad is not None for weight in network.parameters())

    def test_its_state_is_real_and_its_weights_follow_the_seed(
        self, kind: type[AbstractSurrogate], make_schema: MakeSchema
    ) -> None:
        states = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            states.append(small(kind).build(make_schema((8, 8))).state_dict())
        assert all(not tensor.is_complex() for tensor in states[0].values())
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
        assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])

    def test_runs_in_double_precision(
        self, kind: type[AbstractSurrogate], make_schema: MakeSchema, make_samples: Callable[..., SampleBatch]
    ) -> None:
        schema = make_schema((8, 9), num_parameters=1)
        network, samples = small(kind).build(schema), make_samples(schema, 2)
        single = apply(network, samples)
        double = network.double()(*(torch.from_numpy(a).double() for a in (samples.inputs, samples.parameters)))
        assert double.dtype == torch.float64
        assert torch.allclose(single.double(), double, rtol=1e-4, atol=1e-4)

    def test_overfits_a_few_samples(
        self, kind: type[AbstractSurrogate], make_schema: MakeSchema, make_samples: Callable[..., SampleBatch]
    ) -> None:
        schema = make_schema((8, 8))
        samples = make_samples(schema, 4)
        torch.manual_seed(0)
        network, loss = small(kind).build(schema), RelativeL2()
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
        truth = torch.from_numpy(samples.outputs)
        for _ in range(120):
            optimizer.zero_grad()
            value = loss(apply(network, samples), truth, schema.domain)
            value.backward()
            optimizer.step()
        assert value.item() < 0.05

    def test_does_what_it_declares_about_other_grids(
        self, kind: type[AbstractSurrogate], make_schema: MakeSchema, make_samples: Callable[..., SampleBatch]
    ) -> None:
        if not kind.any_resolution:
            pytest.skip("runs on its own grid only")
        network = small(kind).build(make_schema((8, 8)))
        for shape in ((16, 16), (15, 11), (5, 4)):
            assert apply(network, make_samples(make_schema(shape), 1)).shape == (1, 1, 1, *shape)


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
