"""Exported models: every network, strategy and format says what the predictor says, for any number of samples."""

import hashlib
import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headrace.platform.errors import InputError, RunFailed
from headrace.surrogates.capabilities import MODEL_FORMATS, Capabilities
from headrace.surrogates.checkpoint import Predictor, load_checkpoint
from headrace.surrogates.layers.spectral_conv import SpectralConv
from headrace.surrogates.models import FNO, MLP, SURROGATES
from headrace.surrogates.portable import conversions, export
from headrace.surrogates.portable.export import export_model, relative_difference
from headrace.surrogates.portable.forecast import forecast_of, self_test_inputs
from headrace.surrogates.strategies import AllAtOnce, Autoregressive, TimeConditioned
from headrace.surrogates.strategy import AbstractStrategy
from headrace.surrogates.surrogate import AbstractSurrogate

Make = Callable[..., Path]

NETWORKS: dict[str, AbstractSurrogate] = {
    "fno": FNO(modes=3, width=8, layers=2, projection_width=8, padding=0.2),
    "mlp": MLP(hidden=(8,)),
}
STRATEGIES: dict[str, AbstractStrategy] = {
    "steady": AllAtOnce(),
    "direct": AllAtOnce(),
    "autoregressive": Autoregressive(),
    "time_conditioned": TimeConditioned(),
}
CASES = [
    ("fno", (14,), "steady"),
    ("fno", (14,), "autoregressive"),
    ("fno", (8, 7), "steady"),
    ("fno", (8, 7), "time_conditioned"),
    ("fno", (6, 5, 6), "steady"),
    ("fno", (6, 5, 6), "direct"),
    ("mlp", (14,), "steady"),
    ("mlp", (14,), "time_conditioned"),
    ("mlp", (8, 7), "steady"),
    ("mlp", (8, 7), "autoregressive"),
    ("mlp", (6, 5, 6), "steady"),
    ("mlp", (6, 5, 6), "direct"),
]
# Each conversion takes seconds of a processor, but for TorchScript's: of the others each network, time and dimension is
# here once. `HEADRACE_ALL_EXPORTS=1 pytest tests/surrogates/portable` tries all 48, in some minutes.
ALWAYS = {
    "onnx": (1, 2, 7, 11),
    "torch-export": (4, 9),
    "torchscript": range(len(CASES)),
    "aoti": (),  # see `compiled`
}
TRIED = [
    pytest.param(*case, name, id=f"{case[0]}-{len(case[1])}d-{case[2]}-{name}")
    for name, places in ALWAYS.items()
    for place, case in enumerate(CASES)
    if place in places or os.environ.get("HEADRACE_ALL_EXPORTS")
]

needs_onnx = pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="no onnxruntime")


def call(path: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """What a file says, asked as its format's own documentation asks."""
    tensors = [torch.from_numpy(array) for array in arrays.values()]
    if path.name == "model.onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (said,) = session.run(["outputs"], arrays)
        return np.asarray(said)
    if path.name == "model.pt2":
        return np.asarray(torch.export.load(path).module()(*tensors).numpy())
    if path.name == "model.aoti.pt2":
        return np.asarray(torch._inductor.aoti_load_package(str(path))(*tensors).numpy())
    return np.asarray(torch.jit.load(str(path))(*tensors).numpy())


def agrees(folder: Path, checkpoint: Path, count: int = 5) -> None:
    """The file and the predictor say the same of samples that the export has not seen, as many as it has not tried."""
    card = json.loads((folder / "card.json").read_text())
    eager = forecast_of(load_checkpoint(checkpoint), "float32", None)
    arrays = {
        name: tensor.numpy() for name, tensor in zip(eager.names, self_test_inputs(eager, count, seed=9), strict=True)
    }
    assert [given["name"] for given in card["inputs"]] == list(arrays)
    inputs = arrays.get("inputs", np.zeros((count, 0, *card["valid_sizes"]["grid"]), np.float32))
    expected = Predictor.from_checkpoint(checkpoint).predict(inputs, arrays.get("parameters"))
    said = call(folder / card["file"], arrays)
    assert said.shape == expected.shape == (count, *card["outputs"][0]["shape"][1:])
    assert said.dtype == np.float32
    assert np.linalg.norm(said - expected) <= 1e-6 * np.linalg.norm(expected)
    # The pair beside it is one, too.
    with np.load(folder / card["self_test"]) as pair:
        again = call(folder / card["file"], {name: pair[name] for name in arrays})
        assert np.linalg.norm(again - pair["outputs"]) <= 1e-6 * np.linalg.norm(pair["outputs"])


@pytest.mark.timeout(400)  # of waiting for a processor
@pytest.mark.parametrize(("network", "grid", "how", "name"), TRIED)
def test_says_what_the_predictor_says(
    network: str, grid: tuple[int, ...], how: str, name: str, make_checkpoint: Make, tmp_path: Path
) -> None:
    if name == "onnx":
        pytest.importorskip("onnxruntime")
    steady = how == "steady"
    checkpoint = make_checkpoint(
        NETWORKS[network], STRATEGIES[how], grid, num_times=1 if steady else 3, num_parameters=0 if steady else 2
    )
    done = export_model(checkpoint, name, tmp_path / "out")
    assert done.error <= 1e-6
    agrees(tmp_path / "out", checkpoint)


def test_the_cases_have_every_network() -> None:
    assert {network for network, _, _ in CASES} == {str(kind.model_fields["kind"].default) for kind in SURROGATES}


class TestArguments:
    """Which there are."""

    @pytest.mark.timeout(400)
    def test_fields_and_parameters(self, compiled: Any) -> None:
        agrees(compiled.folder, compiled.checkpoint)
        assert compiled.exported.card["versions"]["processor"] == torch.backends.cpu.get_cpu_capability()

    @pytest.mark.parametrize("name", ["torchscript", *(["aoti"] if os.environ.get("HEADRACE_ALL_EXPORTS") else [])])
    def test_parameters_alone(self, name: str, make_checkpoint: Make, tmp_path: Path) -> None:
        checkpoint = make_checkpoint(NETWORKS["mlp"], STRATEGIES["time_conditioned"], (4, 3, 3), with_fields=False)
        export_model(checkpoint, name, tmp_path / "out")
        agrees(tmp_path / "out", checkpoint)


class TestWhatIsLeft:
    """Files, the card, and nothing where something went wrong."""

    def test_the_card_describes_the_model(self, make_checkpoint: Make, tmp_path: Path) -> None:
        checkpoint = make_checkpoint(NETWORKS["fno"], STRATEGIES["autoregressive"], (8, 7))
        done = export_model(checkpoint, "torchscript", tmp_path / "out")
        assert [file.name for file in done.files] == ["model.torchscript.pt", "card.json", "selftest.npz"]
        assert sorted(done.files) == sorted((tmp_path / "out").iterdir())
        card = json.loads((tmp_path / "out" / "card.json").read_text())
        assert card["inputs"][0] == {
            "name": "inputs",
            "shape": ["batch", 2, 8, 7],
            "fields": [
                {"name": "u", "unit": "m/s", "channels": [0]},
                {"name": "k", "unit": "1", "channels": [1]},
            ],
        }
        assert [field["name"] for field in card["inputs"][1]["fields"]] == ["nu", "c"]
        assert card["outputs"][0]["shape"] == ["batch", 3, 1, 8, 7]
        assert card["times"] == [0.25, 0.5, 0.75]
        assert card["valid_sizes"]["grid"] == [8, 7]
        assert card["checkpoint"]["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
        assert card["versions"]["torch"] == torch.__version__
        assert card["agreement"]["relative_error"] == done.error <= card["agreement"]["limit"] == 1e-6
        inside = {"headrace_shapes": ""}
        torch.jit.load(str(tmp_path / "out" / "model.torchscript.pt"), _extra_files=inside)
        assert inside["headrace_shapes"] == b"float32;inputs 2 8 7;parameters 2;outputs 3 1 8 7"

    def test_a_file_that_says_something_else_is_not_left(
        self, make_checkpoint: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = conversions.TorchExport.read

        def off(self: conversions.TorchExport, path: Path) -> Callable[..., torch.Tensor]:
            exact = read(self, path)
            return lambda *given: exact(*given) * (1 + 3e-6)

        monkeypatch.setattr(conversions.TorchExport, "read", off)
        checkpoint = make_checkpoint(NETWORKS["mlp"], STRATEGIES["direct"], (6,))
        with pytest.raises(RunFailed, match=r"torch-export file differs .* by 3\.\de-06 .* more than 1e-06.*float64"):
            export_model(checkpoint, "torch-export", tmp_path / "out")
        assert list(tmp_path.iterdir()) == []

    def test_a_file_that_takes_one_batch_size_only_is_not_left(
        self, make_checkpoint: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # As a traced network does that calls len(): the number of samples of the trace stays in it.
        monkeypatch.setattr(
            conversions.TorchScript, "read", lambda self, path: lambda *given: torch.zeros(export.BATCHES[0], 3, 1, 6)
        )
        checkpoint = make_checkpoint(NETWORKS["mlp"], STRATEGIES["direct"], (6,))
        with pytest.raises(RunFailed, match="differs from the surrogate by inf"):
            export_model(checkpoint, "torchscript", tmp_path / "out")
        assert list(tmp_path.iterdir()) == []

    def test_forecasts_that_are_not_finite_are_told(self, make_checkpoint: Make, tmp_path: Path) -> None:
        checkpoint = make_checkpoint(NETWORKS["mlp"], STRATEGIES["direct"], (6,))
        content = torch.load(checkpoint, weights_only=True)
        content["weights"]["project.bias"][0] = float("inf")
        broken = tmp_path / "broken.pt"
        torch.save(content, broken)
        with pytest.raises(RunFailed, match="not finite"):
            export_model(broken, "torchscript", tmp_path / "out")
        assert list(tmp_path.iterdir()) == [broken]

    def test_the_constants_that_training_uses_are_as_before(self, make_checkpoint: Make, tmp_path: Path) -> None:
        # Tensors that are kept between calls must not be those of a trace.
        checkpoint = make_checkpoint(FNO(modes=3, width=4, layers=1), STRATEGIES["direct"], (9, 7), num_times=1)
        export_model(checkpoint, "torch-export", tmp_path / "out")
        model = load_checkpoint(checkpoint).build().train()
        inputs = torch.rand(2, 2, 9, 7) + 0.5
        model(inputs, torch.rand(2, 2)).square().mean().backward()
        assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.network.parameters())


class TestOptions:
    """Precision and grid."""

    def test_double_precision_agrees_to_its_own_rounding(self, make_checkpoint: Make, tmp_path: Path) -> None:
        checkpoint = make_checkpoint(NETWORKS["fno"], STRATEGIES["autoregressive"], (14,))
        done = export_model(checkpoint, "torchscript", tmp_path / "out", precision="float64")
        assert done.error <= done.limit == 1e-12
        with np.load(tmp_path / "out" / "selftest.npz") as pair:
            assert pair["outputs"].dtype == np.float64
            said = Predictor.from_checkpoint(checkpoint).predict(pair["inputs"], pair["parameters"])
            # The weights are those of single precision, and so is the predictor.
            assert 1e-9 < np.linalg.norm(said - pair["outputs"]) / np.linalg.norm(said) < 1e-5

    def test_another_grid(self, make_checkpoint: Make, tmp_path: Path) -> None:
        checkpoint = make_checkpoint(NETWORKS["fno"], STRATEGIES["direct"], (8, 7))
        export_model(checkpoint, "torchscript", tmp_path / "out", grid=(12, 9))
        with np.load(tmp_path / "out" / "selftest.npz") as pair:
            assert pair["inputs"].shape == (3, 2, 12, 9)
            said = Predictor.from_checkpoint(checkpoint).predict(pair["inputs"], pair["parameters"])
            assert np.linalg.norm(said - pair["outputs"]) <= 1e-6 * np.linalg.norm(said)

    @pytest.mark.parametrize(
        ("network", "grid", "words"),
        [("mlp", (9, 7), "--grid is 9x7; expected the grid"), ("fno", (9,), "2 numbers of points")],
    )
    def test_a_grid_that_the_network_does_not_take(
        self, network: str, grid: tuple[int, ...], words: str, make_checkpoint: Make, tmp_path: Path
    ) -> None:
        checkpoint = make_checkpoint(NETWORKS[network], STRATEGIES["direct"], (8, 7))
        with pytest.raises(InputError, match=words):
            export_model(checkpoint, "torchscript", tmp_path / "out", grid=grid)


class TestRefusals:
    """What cannot be exported is said in a sentence, before anything is written."""

    def test_a_format_that_the_network_declares_not_to_have(
        self, make_checkpoint: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checkpoint = make_checkpoint(NETWORKS["mlp"], STRATEGIES["direct"], (6,))
        monkeypatch.setattr(MLP, "capabilities", Capabilities(exports=("torch-export",)))
        with pytest.raises(InputError, match="mlp can be exported to torch-export, as it declares"):
            export_model(checkpoint, "onnx", tmp_path / "out")
        assert "exported to torch-export" in str(MLP().capabilities)

    def test_a_network_that_draws_random_numbers(self) -> None:
        for name in MODEL_FORMATS:
            assert "random numbers" in str(Capabilities(noise=2).export_mismatch("mine", name))
            assert Capabilities().export_mismatch("mine", name) is None

    def test_a_network_that_a_converter_does_not_take(
        self, make_checkpoint: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checkpoint = make_checkpoint(NETWORKS["mlp"], STRATEGIES["direct"], (6,))
        build = MLP.build

        def branching(self: MLP, schema: Any) -> torch.nn.Module:
            network = build(self, schema)
            network.register_forward_pre_hook(lambda module, given: None if given[0].sum() > 0 else None)
            return network

        monkeypatch.setattr(MLP, "build", branching)
        with pytest.raises(InputError, match=r"expected a format that mlp can be exported to in float32\. \w+: "):
            export_model(checkpoint, "torch-export", tmp_path / "out")
        assert list(tmp_path.iterdir()) == []

    def test_missing_packages(self, make_checkpoint: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        checkpoint = make_checkpoint(NETWORKS["mlp"], STRATEGIES["direct"], (6,))
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith("onnx") else find(name))
        with pytest.raises(InputError) as caught:
            export_model(checkpoint, "onnx", tmp_path / "out")
        words = "onnx\"; expected onnx and onnxruntime and onnxscript installed. Run: pip install 'headrace[export]'"
        assert words in str(caught.value)

    def test_no_compiler(self, make_checkpoint: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        checkpoint = make_checkpoint(NETWORKS["mlp"], STRATEGIES["direct"], (6,))
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CXX", raising=False)
        with pytest.raises(InputError, match=r'--format is "aoti"; expected a C\+\+ compiler\. None was found'):
            export_model(checkpoint, "aoti", tmp_path / "out")


class TestPieces:
    """The path that is taken for formats without complex numbers, the inputs of the self-test, the measure."""

    def test_matrices_do_what_the_fft_does(self) -> None:
        torch.manual_seed(0)
        layer = SpectralConv(3, 4, (70,)).double()
        field = torch.randn(2, 160, 3, dtype=torch.float64)
        by_fft = layer(field)
        layer.always_by_matrix = True
        by_matrix = layer(field)
        assert not torch.equal(by_fft, by_matrix), "two ways"
        torch.testing.assert_close(by_matrix, by_fft, rtol=1e-11, atol=1e-12)

    @needs_onnx
    def test_a_network_that_trains_with_an_fft_is_exported_to_onnx(self, make_checkpoint: Make, tmp_path: Path) -> None:
        network = FNO(modes=66, width=4, layers=1, projection_width=4)
        checkpoint = make_checkpoint(network, STRATEGIES["direct"], (140,), num_parameters=0)
        export_model(checkpoint, "onnx", tmp_path / "out")
        agrees(tmp_path / "out", checkpoint)

    def test_self_test_inputs_have_the_scales_of_training(self, make_checkpoint: Make) -> None:
        checkpoint = load_checkpoint(make_checkpoint(NETWORKS["fno"], STRATEGIES["direct"], (16, 14)))
        forecast = forecast_of(checkpoint, "float32")
        inputs, parameters = self_test_inputs(forecast, 64)
        seen = forecast.model.normalizer.normalize(inputs, parameters)[0]
        assert seen.mean().abs() < 0.1 and 0.9 < seen.std() < 1.1
        assert bool((inputs[:, 1] > 0).all()), "the logarithm of k is taken"

    def test_relative_difference(self) -> None:
        truth = torch.ones(2, 2, 1, 4)
        truth[:, 1] = 1e-3
        said = truth.clone()
        said[:, 1] *= 1.01
        assert relative_difference(said, truth) == pytest.approx(0.01, rel=1e-4), "small times are not hidden"
        assert relative_difference(truth[:1], truth) == float("inf")
        assert relative_difference(truth * float("nan"), truth) == float("inf")
        assert relative_difference(truth * 0, truth * 0) == 0
