"""Checkpoints: whole, plain, rebuilt to the bit, and refused with a reason; and the predictor that stands on one."""

import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headrace.platform.errors import InputError
from headrace.platform.fields import FieldSpec, SampleSchema, require_grid
from headrace.platform.sample import SampleBatch
from headrace.platform.spec import kinds
from headrace.surrogates import checkpoint as module
from headrace.surrogates.batch import Batch
from headrace.surrogates.checkpoint import Checkpoint, Predictor, _load_pyfunc, load_checkpoint, save_checkpoint
from headrace.surrogates.models import SURROGATES
from headrace.surrogates.models.fno import FNO
from headrace.surrogates.normalization import NormalizationSpec
from headrace.surrogates.normalizer import NormalizedNetwork, Normalizer
from headrace.surrogates.strategies import AllAtOnce
from headrace.surrogates.training import TrainingSpec

Trained = tuple[NormalizedNetwork, Checkpoint, SampleBatch]


@pytest.fixture
def trained(make_schema: Callable[..., SampleSchema], make_samples: Callable[..., SampleBatch]) -> Trained:
    """A network with a state worth keeping, the checkpoint of it, and samples of its problem."""
    schema = make_schema((8, 9), num_times=2, num_parameters=1)
    samples = make_samples(schema, 6)
    samples = dataclasses.replace(samples, inputs=np.exp(samples.inputs / 20))
    surrogate, normalization = FNO(modes=3, width=6, layers=2), NormalizationSpec(log=("permeability",))
    model = NormalizedNetwork(surrogate.build(schema), Normalizer(normalization, schema), surrogate.capabilities)
    batch = Batch.of(samples)
    model.normalizer.update(batch.inputs, batch.outputs, batch.parameters)
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    (model(batch.inputs, batch.parameters) - batch.outputs).square().mean().backward()
    optimizer.step()
    checkpoint = Checkpoint(
        step=7,
        surrogate=surrogate,
        normalization=normalization,
        strategy=AllAtOnce(),
        training=TrainingSpec().model_dump(mode="json"),
        schema=schema,
        weights=model.network.state_dict(),
        moments=model.normalizer.state_dict(),
        optimizer=optimizer.state_dict(),
        schedule=schedule.state_dict(),
    )
    return model, checkpoint, samples


@pytest.fixture
def path(trained: Trained, tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "folder" / "last.pt", trained[1])
    return tmp_path / "folder" / "last.pt"


class TestRoundTrip:
    def test_predictions_are_equal_to_the_bit(self, trained: Trained, path: Path) -> None:
        model, _, samples = trained
        with torch.no_grad():
            expected = model(*(torch.from_numpy(array) for array in (samples.inputs, samples.parameters)))
        assert np.array_equal(Predictor.from_checkpoint(path).predict(samples.inputs, samples.parameters), expected)

    def test_everything_comes_back(self, trained: Trained, path: Path) -> None:
        written, read = trained[1], load_checkpoint(path, schema=trained[1].schema)
        for name in ("step", "surrogate", "normalization", "training", "schema", "version"):
            assert getattr(read, name) == getattr(written, name)
        for state in ("weights", "moments"):
            assert all(
                torch.equal(tensor, getattr(read, state)[name]) for name, tensor in getattr(written, state).items()
            )
        assert read.schedule == {**written.schedule}
        moments = read.optimizer["state"][0]["exp_avg"]
        assert torch.equal(moments, written.optimizer["state"][0]["exp_avg"]) and moments.any()

    def test_the_file_holds_nothing_but_tensors_numbers_and_text(self, path: Path) -> None:
        content = torch.load(path, weights_only=True)
        assert content["format"] == 2
        assert json.loads(content["surrogate"])["kind"] == "fno"
        assert [entry["name"] for entry in json.loads(content["schema"])["inputs"]] == ["permeability", "source"]
        assert all(
            isinstance(tensor, torch.Tensor) and not tensor.is_complex() for tensor in content["weights"].values()
        )

    def test_a_write_that_fails_leaves_the_old_file(
        self, trained: Trained, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = path.read_bytes()

        def fail(content: object, file: object) -> None:
            file.write(b"half")  # type: ignore[attr-defined]
            raise OSError("no space left on device")

        monkeypatch.setattr(module.torch, "save", fail)
        with pytest.raises(OSError, match="no space left"):
            save_checkpoint(path, trained[1])
        assert path.read_bytes() == before
        assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("device", "num_points", "expected"),
    [("cpu", 64 * 64, 8), ("cpu", 16 * 16, 64), ("cpu", 512 * 512, 1), ("cpu", 1, 64), ("meta", 512 * 512, 16)],
)
def test_on_a_cpu_as_many_samples_at_a_time_as_stay_in_its_caches(
    device: str, num_points: int, expected: int, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(trained[1], device="cpu")
    monkeypatch.setattr(predictor, "_device", torch.device(device))
    assert predictor._batch_size(num_points) == expected


class TestRefusal:
    def refused(self, path: Path, words: str, schema: SampleSchema | None = None) -> None:
        with pytest.raises(InputError, match=words) as error:
            load_checkpoint(path, schema=schema)
        assert str(path) in str(error.value)

    def changed(self, path: Path, **entries: object) -> Path:
        torch.save({**torch.load(path, weights_only=True), **entries}, path)
        return path

    def test_of_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        self.refused(tmp_path / "none.pt", "There is no such file")

    def test_of_a_folder(self, tmp_path: Path) -> None:
        self.refused(tmp_path, "expected a checkpoint file")

    @pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 damaged"])
    def test_of_something_else(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "x.pt").write_bytes(content)
        self.refused(tmp_path / "x.pt", "expected a Headrace checkpoint. The file is damaged, or something else")

    def test_of_a_truncated_file(self, path: Path) -> None:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        self.refused(path, "The file is damaged")

    def test_of_a_file_that_would_run_code(self, tmp_path: Path) -> None:
        class Harmful:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return (exec, ("raise SystemExit('code of a file was run')",))

        (tmp_path / "x.pt").write_bytes(pickle.dumps(Harmful(), protocol=2))
        self.refused(tmp_path / "x.pt", "The file is damaged, or something else")

    def test_of_another_program_s_file(self, tmp_path: Path) -> None:
        torch.save({"state_dict": {}}, tmp_path / "x.pt")
        self.refused(tmp_path / "x.pt", "a file of another program; expected a Headrace checkpoint")

    def test_of_a_newer_format(self, path: Path) -> None:
        self.refused(
            self.changed(path, format=3, headrace="9.1"),
            r"is of format 3, written by Headrace 9\.1; expected format 2 at most. Install that version",
        )

    def test_of_a_surrogate_that_is_not_installed(self, path: Path) -> None:
        known = ", ".join(sorted(kinds("headrace.surrogates", SURROGATES)))
        self.refused(
            self.changed(path, surrogate='{"kind": "fnoo"}'),
            f'of a surrogate of kind "fnoo"; expected one of {known}. Did you mean "fno"\\? A plug-in may be missing',
        )

    def test_of_a_file_with_a_part_missing(self, path: Path) -> None:
        self.refused(self.changed(path, schema="{}"), "Part of it cannot be read")

    def test_of_another_problem(self, path: Path, trained: Trained) -> None:
        schema = dataclasses.replace(trained[1].schema, inputs=(FieldSpec(name="vorticity", unit="1/s"),))
        self.refused(
            path,
            r"expected a checkpoint of this problem. It is of another one, with inputs: permeability, source, "
            r"and not vorticity \[1/s\]",
            schema,
        )
        schema = dataclasses.replace(trained[1].schema, times=(0.0,))
        self.refused(path, "times: 2 from 0 to 1, and not 0", schema)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"location": "cells"}, "location of the values: nodes, and not cells"),
            ({"periodic": (True, False)}, r"periodic axes: \(False, False\), and not \(True, False\)"),
            ({"extent": (1.0, 2.0)}, r"extent: \(1.0, 1.0\), and not \(1.0, 2.0\)"),
            ({"extent": (1.0, 2.0), "location": "cells"}, r"extent: .*; location of the values: nodes, and not cells"),
        ],
    )
    def test_of_data_on_another_kind_of_grid(
        self, path: Path, trained: Trained, changes: dict[str, Any], words: str
    ) -> None:
        schema = trained[1].schema
        self.refused(
            path, words, dataclasses.replace(schema, domain=dataclasses.replace(require_grid(schema.domain), **changes))
        )

    def test_of_data_in_another_unit(self, path: Path, trained: Trained) -> None:
        schema = dataclasses.replace(trained[1].schema, outputs=(FieldSpec(name="pressure", unit="Pa"),))
        self.refused(path, r"unit of pressure: \[1\], and not \[Pa\]", schema)


class TestPredictor:
    def test_does_not_depend_on_the_batch_size(self, trained: Trained, path: Path) -> None:
        predictor, samples = Predictor.from_checkpoint(path), trained[2]
        whole = predictor.predict(samples.inputs, samples.parameters)
        parts = predictor.predict(samples.inputs, samples.parameters, batch_size=4)
        assert whole.shape == (6, 2, 1, 8, 9) and whole.dtype == np.float32
        assert np.allclose(whole, parts, rtol=1e-4, atol=1e-5)

    def test_takes_other_grids_other_types_and_no_samples(self, path: Path) -> None:
        predictor = Predictor.from_checkpoint(path)
        assert predictor.predict(np.ones((2, 2, 16, 5)), np.ones((2, 1))).shape == (2, 2, 1, 16, 5)
        assert predictor.predict(np.ones((1, 2, 8, 9), dtype=bool), np.ones((1, 1), dtype=int)).shape == (1, 2, 1, 8, 9)
        assert predictor.predict(np.ones((0, 2, 8, 9)), np.ones((0, 1))).shape == (0, 2, 1, 8, 9)

    @pytest.mark.parametrize(
        ("inputs", "parameters", "words"),
        [
            (
                np.ones((3, 1, 8, 9)),
                np.ones((3, 1)),
                r"Inputs have 1 channels, the schema has 2 \(permeability, source\)",
            ),
            (np.ones((2, 8, 9)), np.ones((2, 1)), r"\(2, 8, 9\); expected 4 axes \(batch, channels, 2 of the grid\)"),
            (
                np.full((3, 2, 8, 9), np.nan),
                np.ones((3, 1)),
                r"inputs \(permeability\) is nan in sample 0, point \(0, 0\); expected finite values",
            ),
            (
                np.ones((3, 2, 8, 9)),
                np.full((3, 1), np.inf),
                r"parameters \(p0\) is inf in sample 0; expected finite values",
            ),
            (np.ones((3, 2, 8, 9)), None, r"parameters is missing; expected shape \(3, 1\) \(p0\)"),
            (np.ones((3, 2, 8, 9)), np.ones((2, 1)), r"parameters is of shape \(2, 1\); expected shape \(3, 1\)"),
            (np.full((3, 2, 8, 9), "a"), np.ones((3, 1)), "inputs is of type <U1; expected real numbers"),
            (np.zeros((3, 2, 8, 9)), np.ones((3, 1)), r"inputs \(permeability\): expected positive values"),
        ],
    )
    def test_says_what_is_wrong_with_the_arrays(
        self, path: Path, inputs: np.ndarray, parameters: np.ndarray | None, words: str
    ) -> None:
        with pytest.raises(InputError, match=words):
            Predictor.from_checkpoint(path).predict(inputs, parameters)

    def test_checks_the_schema_of_data(
        self, path: Path, trained: Trained, make_schema: Callable[..., SampleSchema]
    ) -> None:
        predictor = Predictor.from_checkpoint(path)
        predictor.check_schema(make_schema((32, 32), num_times=2, num_parameters=1), "data/test")
        with pytest.raises(
            InputError, match=r"data/test: expected data of the checkpoint's problem.*axes of the grid: 2, and not 1"
        ):
            predictor.check_schema(make_schema((32,), num_times=2, num_parameters=1), "data/test")


class TestServed:
    def test_loads_a_file_or_the_folder_that_holds_it(self, path: Path, trained: Trained) -> None:
        samples = trained[2]
        expected = Predictor.from_checkpoint(path).predict(samples.inputs, samples.parameters)
        for place in (path, path.parent):
            served = _load_pyfunc(str(place))
            given = {"inputs": samples.inputs, "parameters": samples.parameters}
            assert np.array_equal(served.predict(given, params=None), expected)

    def test_says_what_it_takes(self, path: Path) -> None:
        served = _load_pyfunc(str(path))
        with pytest.raises(InputError, match="model_input is input; expected the keys inputs and parameters"):
            served.predict({"input": np.ones(1)})
        with pytest.raises(InputError, match="expected the key inputs"):
            served.predict({"parameters": np.ones((1, 1))})
        with pytest.raises(InputError, match="parameters is missing"):
            served.predict(np.ones((1, 2, 8, 9)))

    def test_says_that_a_folder_holds_no_checkpoint(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"a folder with 0 \.pt files; expected one checkpoint, or last\.pt"):
            _load_pyfunc(str(tmp_path))
