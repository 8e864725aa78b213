"""Losses and metrics against hand formulas and known norms."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from headrace.platform.fields import Domain, FieldSpec, Grid, Mesh, SampleSchema
from headrace.platform.spec import kinds
from headrace.surrogates import metrics
from headrace.surrogates.batch import Batch
from headrace.surrogates.loss import AbstractLoss, LossContext
from headrace.surrogates.losses import LOSSES, RelativeH1, RelativeL2

LINE = Grid(shape=(4,), extent=(3.0,), periodic=(False,))
truth = torch.tensor([[[[1.0, -2.0, 2.0, 4.0]]], [[[0.0, 3.0, 0.0, 4.0]]]], dtype=torch.float64)
prediction = truth + torch.tensor([3.0, 0.0, 0.0, -4.0], dtype=torch.float64)


def test_metrics_by_hand() -> None:
    def hand(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64)

    assert torch.allclose(metrics.relative_l1(prediction, truth, LINE), hand([7 / 9, 1.0]))
    assert torch.allclose(metrics.relative_l2(prediction, truth, LINE), hand([1.0, 1.0]))
    assert torch.allclose(metrics.relative_linf(prediction, truth, LINE), hand([1.0, 1.0]))
    # Spacing 1, ends weighted by a half: ∫ e² = 9/2 + 16/2, and 1/2 + 4 + 4 + 16/2 and 9 + 16/2 of the truth;
    # the steps of the error are -3, 0, -4, the truth's -3, 4, 2 and 3, -3, 4.
    assert torch.allclose(
        metrics.relative_h1(prediction, truth, LINE),
        hand([math.sqrt((12.5 + 25) / (16.5 + 29)), math.sqrt((12.5 + 25) / (17 + 34))]),
    )
    variances = [25 / 4 - (5 / 4) ** 2, 25 / 4 - (7 / 4) ** 2]
    assert torch.allclose(metrics.vrmse(prediction, truth, LINE), hand([math.sqrt(6.25 / v) for v in variances]))


def test_vrmse_of_the_spatial_mean_is_one() -> None:
    field = torch.rand(3, 2, 2, 8, 8, dtype=torch.float64)
    grid = Grid(shape=(8, 8), extent=(1.0, 1.0), periodic=(True, True))
    mean = field.mean((3, 4), keepdim=True).expand_as(field)
    assert torch.allclose(metrics.vrmse(mean, field, grid), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("periodic", "location"), [(True, "nodes"), (False, "nodes"), (False, "cells")], ids=["periodic", "nodes", "cells"]
)
def test_h1_of_a_sine_converges_to_its_exact_norm_at_second_order(periodic: bool, location: str) -> None:
    # u = sin(2 pi x / L) sin(4 pi y / W) on L x W = 2 x 3 against v = 2 u + w, w = sin(4 pi x / L) sin(4 pi y / W):
    # mean squares are 1/4 each, the gradients' are 1/4 (kx^2 + ky^2), and u and w are orthogonal.
    def squared_norm(mx: int, my: int) -> float:
        return 0.25 * (1 + (2 * math.pi * mx / 2) ** 2 + (2 * math.pi * my / 3) ** 2)

    exact = math.sqrt((squared_norm(1, 2) + squared_norm(2, 2)) / squared_norm(1, 2))
    errors = []
    for n in (32, 64, 128):
        grid = Grid(shape=(n, n), extent=(2.0, 3.0), periodic=(periodic, periodic), location=location)  # type: ignore[arg-type]
        x, y = np.meshgrid(*grid.coordinates(), indexing="ij")
        u = np.sin(math.pi * x) * np.sin(4 * math.pi * y / 3)
        w = np.sin(2 * math.pi * x) * np.sin(4 * math.pi * y / 3)
        found = metrics.per_sample((2 * u + w)[None, None, None], u[None, None, None], grid)["relative_h1"]
        errors.append(abs(found[0] - exact))
    orders = [math.log2(coarse / fine) for coarse, fine in zip(errors, errors[1:], strict=False)]
    assert errors[-1] < 1e-3
    assert all(order > 1.9 for order in orders)


def test_h1_sees_a_checkerboard() -> None:
    n = 16
    grid = Grid(shape=(n,), extent=(1.0,), periodic=(True,))
    smooth = torch.sin(2 * math.pi * torch.arange(n) / n)[None, None, None]
    checkerboard = 0.01 * (-1.0) ** torch.arange(n)
    assert metrics.relative_h1(smooth + checkerboard, smooth, grid) > 4 * metrics.relative_l2(
        smooth + checkerboard, smooth, grid
    )


def test_errors_on_another_resolution_of_the_domain_agree() -> None:
    grid = Grid(shape=(32,), extent=(2.0,), periodic=(True,))
    values = {}
    for n in (64, 128):
        x = torch.arange(n, dtype=torch.float64) * 2 / n
        u, v = torch.sin(math.pi * x), torch.sin(2 * math.pi * x)
        values[n] = metrics.relative_h1((u + v)[None, None, None], u[None, None, None], grid).item()
    assert values[64] == pytest.approx(values[128], rel=5e-3)


def test_per_sample_reports_every_metric_and_refuses_other_shapes() -> None:
    found = metrics.per_sample(prediction.numpy(), truth.numpy(), LINE)
    assert list(found) == ["relative_l2", "relative_h1", "relative_l1", "relative_linf", "vrmse"]
    assert all(values.shape == (2,) for values in found.values())
    with pytest.raises(ValueError, match=r"prediction has shape \(1, 1, 1, 4\), the truth \(2, 1, 1, 4\)"):
        metrics.per_sample(prediction[:1].numpy(), truth.numpy(), LINE)


class Unscaled:
    """Scales of 1."""

    def in_standard_deviations(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs


def built(loss: AbstractLoss, domain: Domain = LINE) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A loss as a function of two fields."""
    schema = SampleSchema(inputs=(FieldSpec(name="a"),), outputs=(FieldSpec(name="u"),), domain=domain)
    run = loss.build(LossContext(schema=schema, device=torch.device("cpu"), scales=Unscaled()))

    def of(prediction: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        count = len(truth)
        batch = Batch(
            inputs=truth[:, 0],
            outputs=truth,
            parameters=truth.new_zeros(count, 0),
            indices=torch.arange(count),
            levels=("all",) * count,
            weights=truth.new_ones(count),
            rank_weight=float(count),
        )
        return run(prediction, batch)

    return of


@pytest.mark.parametrize("kind", kinds("headrace.losses", LOSSES).values())
class TestEveryLoss:
    """What holds of any loss, and what each declares."""

    def test_has_one_value_for_each_sample_which_does_not_depend_on_the_others(self, kind: type[AbstractLoss]) -> None:
        loss = built(kind())
        both = loss(prediction, truth)
        assert both.shape == (2,)
        for row in (0, 1):
            torch.testing.assert_close(loss(prediction[row : row + 1], truth[row : row + 1]), both[row : row + 1])

    def test_is_zero_with_a_finite_gradient_where_the_prediction_is_exact(self, kind: type[AbstractLoss]) -> None:
        guess = truth.clone().requires_grad_()
        value = built(kind())(guess, truth).sum()
        value.backward()
        assert guess.grad is not None and torch.isfinite(guess.grad).all()
        if kind.vanishes_at_truth:
            assert value.item() < 1e-12 < built(kind())(prediction, truth).min().item()

    def test_is_finite_where_the_truth_vanishes(self, kind: type[AbstractLoss]) -> None:
        assert torch.isfinite(built(kind())(torch.zeros_like(truth), torch.zeros_like(truth))).all()

    def test_depends_on_the_size_of_the_field_unless_it_is_relative(self, kind: type[AbstractLoss]) -> None:
        loss = built(kind())
        large, small = loss(7 * prediction, 7 * truth), loss(prediction, truth)
        assert torch.allclose(large, small, rtol=1e-6) is kind.is_relative

    def test_its_gradient_agrees_with_differences(self, kind: type[AbstractLoss]) -> None:
        loss = built(kind())
        assert torch.autograd.gradcheck(lambda p: loss(p, truth), prediction.clone().requires_grad_())


@pytest.mark.parametrize(("loss", "metric"), [(RelativeL2(), metrics.relative_l2), (RelativeH1(), metrics.relative_h1)])
def test_a_loss_of_a_metric_is_it(loss: AbstractLoss, metric: Callable[..., torch.Tensor]) -> None:
    assert torch.equal(built(loss)(prediction, truth), metric(prediction, truth, LINE))


def test_the_mean_of_a_batch_is_weighted() -> None:
    field = torch.zeros(3, 1, 1, 4)
    batch = Batch(
        inputs=field[:, 0],
        outputs=field,
        parameters=torch.zeros(3, 0),
        indices=torch.arange(3),
        levels=(),
        weights=torch.tensor([1.0, 0.0, 3.0]),
        rank_weight=4.0,
    )
    assert batch.mean(torch.tensor([2.0, 100.0, 6.0])).item() == pytest.approx((2 + 3 * 6) / 4)
    # Of two ranks this one has 4 of 16: what it adds to the mean of both is (2 + 18) / 16.
    assert batch._replace(rank_weight=8.0).mean(torch.tensor([2.0, 100.0, 6.0])).item() / 2 == pytest.approx(20 / 16)


def test_h1_on_a_mesh_integrates_linear_functions_exactly() -> None:
    """w = x + 2 y + 1 on the rectangle [0, 2] x [0, 1], over unequal triangles; u = 2 x."""
    points = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 1.0], [0.0, 1.0], [0.5, 0.6]])
    mesh = Mesh(points=points, cells=np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]]))
    x, y = points.T
    truth, error = (2 * x)[None, None, None], (x + 2 * y + 1)[None, None, None]
    # |∇w|² = 5, |∇u|² = 4, and the mean of u² is 16 / 3.
    s = np.linspace(0.0, 1.0, 5)
    weights = np.array([7, 32, 12, 32, 7]) / 90  # Boole's rule is exact for squares
    w_squared = float(weights @ (2 * s[:, None] + 2 * s + 1) ** 2 @ weights)
    exact = math.sqrt((w_squared + 5) / (16 / 3 + 4))
    found = metrics.per_sample(truth + error, truth, mesh)
    assert found["relative_h1"][0] == pytest.approx(exact, rel=1e-12)
    assert set(found) == set(metrics.METRICS)
    assert built(RelativeH1(), mesh)(torch.tensor(truth + error), torch.tensor(truth)).item() == pytest.approx(exact)
