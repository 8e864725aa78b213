"""load: a trained surrogate predicts by name in physical units, and tells what is outside of what training saw."""

import dataclasses
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from headrace.platform.errors import InputError
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.sample import SampleBatch
from headrace.surrogates import OutsideTraining, TrainedSurrogate, load
from headrace.surrogates.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from headrace.surrogates.datamodule import StoredDataModule
from headrace.surrogates.fit import fit
from headrace.surrogates.models.fno import FNO
from headrace.surrogates.models.mlp import MLP
from headrace.surrogates.seen import Extremes, Interval
from headrace.surrogates.strategies import TimeConditioned
from headrace.surrogates.training import TrainingSpec

SCHEMA = SampleSchema(
    inputs=(FieldSpec(name="permeability", unit="m2"), FieldSpec(name="velocity", components=2)),
    outputs=(FieldSpec(name="pressure", unit="Pa"), FieldSpec(name="flux", components=2)),
    parameters=(FieldSpec(name="viscosity"), FieldSpec(name="traction", components=2)),
    domain=Grid(shape=(8, 6), extent=(1.0, 2.0), periodic=(False, False)),
    times=(0.5, 1.0, 1.5),
)


def samples(count: int = 12) -> SampleBatch:
    rng = np.random.default_rng(0)
    inputs = rng.uniform(1.0, 5.0, (count, 3, 8, 6)).astype(np.float32)
    inputs[:, 1:] -= 3.0
    inputs[0, 0, 0, 0], inputs[1, 0, 1, 1] = 1.0, 5.0
    return SampleBatch(
        indices=np.arange(count),
        inputs=inputs,
        outputs=rng.standard_normal((count, 3, 3, 8, 6)).astype(np.float32),
        parameters=np.linspace([1.0, -1.0, 0.0], [5.0, 1.0, 0.0], count).astype(np.float32),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints of a training of two steps, that saw 12 samples."""
    path = tmp_path_factory.mktemp("trained") / "checkpoints"
    data = StoredDataModule(samples=samples(), batch_size=6, validation=None, rank=0, world_size=1, seed=0)
    training = TrainingSpec(steps=2, batch_size=6)
    fit(surrogate=FNO(modes=3, width=4, layers=1), training=training, schema=SCHEMA, data=data, checkpoint_dir=path)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> TrainedSurrogate:
    return load(folder / "last.pt")


def by_name(batch: SampleBatch) -> dict[str, np.ndarray]:
    return {
        "permeability": batch.inputs[:, 0],
        "velocity": batch.inputs[:, 1:],
        "viscosity": batch.parameters[:, 0],
        "traction": batch.parameters[:, 1:],
    }


class TestLoad:
    def test_a_run_a_folder_and_a_file_are_the_same_model(self, folder: Path, model: TrainedSurrogate) -> None:
        batch = samples()
        expected = model.predict(batch.inputs, batch.parameters)
        for place in (folder, folder.parent, str(folder / "last.pt")):
            assert np.array_equal(load(place).predict(batch.inputs, batch.parameters), expected)
        assert model.schema == SCHEMA

    def test_what_is_no_model_is_said(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with pytest.raises(InputError, match="a folder with 0 .pt files; expected a run with a checkpoint"):
            load(tmp_path)
        with pytest.raises(InputError, match="There is no such file"):
            load("nowhere")
        with pytest.raises(InputError, match="models:/a@b: expected a model in the tracking store .*no such file"):
            load("models:/a@b")
        assert not list(tmp_path.iterdir())


class TestPredict:
    def test_an_array_gives_an_array(self, model: TrainedSurrogate) -> None:
        batch = samples()
        said = model.predict(batch.inputs, batch.parameters)
        assert said.shape == (12, 3, 3, 8, 6) and said.dtype == np.float32
        assert np.array_equal(said, model.predictor.predict(batch.inputs, batch.parameters))
        # One sample; parameters that hold for all of them; and by name.
        assert np.allclose(model.predict(batch.inputs[0], batch.parameters[0]), said[:1], atol=1e-5)
        same = model.predict(batch.inputs[:2], {"viscosity": 1.0, "traction": [-1.0, 0.0]})
        assert np.allclose(same[0], said[0], atol=1e-5)

    def test_names_give_names(self, model: TrainedSurrogate) -> None:
        batch = samples()
        whole = model.predict(batch.inputs, batch.parameters)
        said = model.predict(by_name(batch))
        assert np.array_equal(said["pressure"], whole[:, :, 0]) and np.array_equal(said["flux"], whole[:, :, 1:])
        one = model.predict({name: values[3] for name, values in by_name(batch).items()})
        assert one["pressure"].shape == (3, 8, 6) and one["flux"].shape == (3, 2, 8, 6)
        assert np.allclose(one["flux"], said["flux"][3], atol=1e-5)

    def test_what_has_no_batch_axis_holds_for_all(self, model: TrainedSurrogate) -> None:
        batch = samples()
        given = by_name(batch) | {"velocity": batch.inputs[5, 1:], "viscosity": 2.0}
        said = model.predict(given)
        alone = model.predict({**{name: values[5] for name, values in by_name(batch).items()}, "viscosity": 2.0})
        assert np.allclose(said["flux"][5], alone["flux"], atol=1e-5)

    def test_times_are_chosen(self, model: TrainedSurrogate) -> None:
        batch = samples(3)
        whole = model.predict(batch.inputs, batch.parameters)
        some = model.predict(batch.inputs, batch.parameters, times=[1.5, 0.5000001])
        assert np.array_equal(some, whole[:, [2, 0]])
        with pytest.raises(InputError, match=r"times is 0.7; expected some of 0.5, 1, 1.5. Strategy direct"):
            model.predict(batch.inputs, batch.parameters, times=[0.7])

    def test_another_grid_of_the_same_extent(self, model: TrainedSurrogate) -> None:
        batch = samples(2)
        fine = {name: np.repeat(a, 2, axis=-1) if a.ndim > 2 else a for name, a in by_name(batch).items()}
        with pytest.warns(OutsideTraining, match="the grid is 8x12; training saw 8x6"):
            assert model.predict(fine)["pressure"].shape == (2, 3, 8, 12)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (
                {"permability": 1.0},
                r'with "permability"; expected the fields permeability, velocity.*Did you mean "perm',
            ),
            ({"permeability": None}, r"inputs is without permeability \[m2\]; expected all of the fields"),
            ({"permeability": np.ones((2, 8, 6))}, "different numbers of samples"),
            ({"permeability": np.ones((3, 8, 5))}, r"on different grids \(permeability \(8, 5\), velocity \(8, 6\)\)"),
            (
                {"permeability": np.ones(8)},
                r"permeability is of shape \(8,\); expected an array \(2 axes of the grid\)",
            ),
            ({"velocity": np.ones((3, 3, 8, 6))}, r"velocity is of shape \(3, 3, 8, 6\); expected 2 components"),
            ({"viscosity": np.ones((3, 2))}, r"viscosity is of shape \(3, 2\); expected a number, or one for each"),
            ({"viscosity": None}, "parameters is traction; expected exactly viscosity, traction"),
        ],
    )
    def test_what_does_not_fit_is_named(self, model: TrainedSurrogate, change: dict[str, object], words: str) -> None:
        given = {name: values for name, values in (by_name(samples(3)) | change).items() if values is not None}
        with pytest.raises(InputError, match=words):
            model.predict(given)


def with_value(values: np.ndarray, value: object, dtype: object) -> np.ndarray:
    changed = values.astype(dtype)
    changed[(1, *(0 for _ in values.shape[1:]))] = value
    return changed


class TestNumbers:
    """Fault 9: what single precision does not hold is refused after the cast, with field and place."""

    @pytest.mark.parametrize(
        ("name", "value", "dtype", "words"),
        [
            ("permeability", np.nan, np.float32, r"inputs \(permeability\) is nan in sample 1, point \(0, 0\)"),
            ("velocity", -np.inf, np.float64, r"inputs \(velocity\[0\]\) is -inf in sample 1, point \(0, 0\)"),
            ("permeability", 1e39, np.float64, r"is 1e\+39 in sample 1, point \(0, 0\); expected finite.*3.4e38"),
            ("viscosity", 1e300, np.float64, r"parameters \(viscosity\) is 1e\+300 in sample 1; expected finite"),
            ("traction", np.inf, np.float32, r"parameters \(traction\[0\]\) is inf in sample 1"),
            ("permeability", 1j, np.complex64, "permeability is complex numbers; expected real numbers"),
            ("viscosity", 1j, np.complex128, "viscosity is complex numbers"),
            ("permeability", 1, "timedelta64[s]", "permeability is lengths of time; expected real numbers. Divide"),
            ("viscosity", 1, "datetime64[s]", "viscosity is dates"),
            ("permeability", "a", "U4", "permeability is of type <U4; expected real numbers"),
            ("permeability", None, object, "permeability is Python objects"),
        ],
    )
    def test_are_refused(self, model: TrainedSurrogate, name: str, value: object, dtype: object, words: str) -> None:
        given = by_name(samples(3))
        given[name] = with_value(given[name], value, dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # NumPy's own, of casts that overflow or drop imaginary parts
            with pytest.raises(InputError, match=words):
                model.predict(given)

    def test_that_are_masked_are_refused(self, model: TrainedSurrogate) -> None:
        given: dict[str, object] = {**by_name(samples(3))}
        hidden = np.zeros((3, 8, 6), dtype=bool)
        given["permeability"] = np.ma.MaskedArray(by_name(samples(3))["permeability"], hidden)
        assert model.predict(given)["pressure"].shape == (3, 3, 8, 6)
        hidden[2, 1, 4] = True
        given["permeability"] = np.ma.MaskedArray(by_name(samples(3))["permeability"], hidden)
        with pytest.raises(InputError, match=r"permeability is masked in 1 places, first at \(2, 1, 4\)"):
            model.predict(given)

    def test_an_axis_without_points_is_refused(self, model: TrainedSurrogate) -> None:
        with pytest.raises(InputError, match="at least one point along every axis of the grid"):
            model.predict(np.ones((2, 3, 0, 6)), np.ones((2, 3)))

    def test_rows_of_different_lengths_are_refused(self, model: TrainedSurrogate) -> None:
        with pytest.raises(InputError, match="inputs: expected numbers in an array"):
            model.predict([[1.0], [1.0, 2.0]], np.ones((2, 3)))  # type: ignore[call-overload]

    def test_the_first_of_a_large_array_is_found_a_part_at_a_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from headrace.platform import arrays

        monkeypatch.setattr(arrays, "NBYTES_AT_A_TIME", 64)
        values = np.ones((10, 4), dtype=np.float32)
        values[7, 2] = np.nan
        with pytest.raises(InputError, match=r"values is nan at \(7, 2\)"):
            arrays.require_finite(values, "values")


class TestRange:
    """Fault 10: what training saw is kept, and what is outside of it is told by name."""

    def test_is_what_the_samples_had(self, model: TrainedSurrogate, folder: Path) -> None:
        known, batch = model.valid_range, samples()
        assert known.is_known and known.domain == SCHEMA.domain and known.times == (0.5, 1.5)
        assert list(known.inputs) == ["permeability", "velocity[0]", "velocity[1]"]
        assert known.inputs["permeability"] == Interval(low=1.0, high=5.0, unit="m2")
        for channel, name in enumerate(known.inputs):
            values = batch.inputs[:, channel]
            assert (known.inputs[name].low, known.inputs[name].high) == (values.min(), values.max())
        assert known.parameters["viscosity"] == Interval(low=1.0, high=5.0)
        assert known.parameters["traction[1]"] == Interval(low=0.0, high=0.0)
        assert "permeability 1 to 5 m2" in str(known) and "on 8x6 points" in str(known)

    def test_what_training_saw_is_inside(self, model: TrainedSurrogate) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.predict(by_name(samples()))
        assert not model.outside(by_name(samples())).samples.any()

    @pytest.mark.parametrize(
        ("name", "value", "reason"),
        [
            ("permeability", -0.01, "permeability is -0.01 in sample 1; training saw 1 to 5 m2"),
            ("permeability", 0.0, "permeability is 0 in sample 1; training saw 1 to 5 m2"),
            ("velocity", 40.0, r"velocity\[0\] is 40 in sample 1; training saw -1.99\d* to 1.98\d*"),
            ("viscosity", 2000.0, "viscosity is 2000 in sample 1; training saw 1 to 5"),
            ("traction", -2.0, r"traction\[0\] is -2 in sample 1; training saw -1 to 1"),
        ],
    )
    def test_what_is_outside_is_named(self, model: TrainedSurrogate, name: str, value: float, reason: str) -> None:
        given = by_name(samples(3))
        given[name] = with_value(given[name], value, np.float64)
        found = model.outside(given)
        assert found.samples.tolist() == [False, True, False] and found.is_known
        assert len(found.reasons) == 1 and re.fullmatch(reason, found.reasons[0])
        with pytest.warns(OutsideTraining, match="outside of what training saw: " + reason):
            model.predict(given)
        with pytest.raises(InputError, match="expected what training saw. Outside of it: "):
            model.predict(given, when_outside="refuse")

    def test_a_little_beyond_is_inside_but_never_across_zero(self) -> None:
        assert Interval(low=1.0, high=5.0).bounds() == pytest.approx((0.92, 5.2), abs=0.01)
        low, high = Interval(low=1e-6, high=1.0).bounds()
        assert 0 < low < 1e-6 and high == pytest.approx(1.05)
        assert Interval(low=-2.0, high=2.0).bounds() == pytest.approx((-2.2, 2.2))
        assert Interval(low=0.0, high=1.0).bounds()[0] == 0.0
        assert Interval(low=-5.0, high=-1.0).bounds() == pytest.approx((-5.2, -0.92), abs=0.01)
        assert Interval(low=3.0, high=3.0).bounds() == pytest.approx((3.0, 3.0), rel=1e-5)

    def test_survives_a_resume(self, folder: Path, tmp_path: Path) -> None:
        first = load_checkpoint(folder / "last.pt")
        batch = samples()
        other = dataclasses.replace(batch, inputs=batch.inputs * np.float32(2.0))
        data = StoredDataModule(samples=other, batch_size=6, validation=None, rank=0, world_size=1, seed=0)
        result = fit(
            surrogate=first.surrogate,
            training=TrainingSpec(steps=3, batch_size=6),
            schema=SCHEMA,
            data=data,
            checkpoint_dir=tmp_path,
            resume=folder / "last.pt",
        )
        assert result.checkpoint is not None
        known = load(result.checkpoint).valid_range.inputs["permeability"]
        assert known.low == 1.0 and 5.0 < known.high <= 10.0

    def test_of_a_checkpoint_of_before_is_not_known_and_stays_so(self, folder: Path, tmp_path: Path) -> None:
        old = dataclasses.replace(load_checkpoint(folder / "last.pt"), ranges=None, version="0.1.0")
        save_checkpoint(tmp_path / "last.pt", old)
        assert "ranges" not in torch.load(tmp_path / "last.pt", weights_only=True)
        model = load(tmp_path)
        assert not model.valid_range.is_known
        assert "not known: Headrace 0.1.0 wrote the checkpoint" in str(model.valid_range)
        given = by_name(samples(2)) | {"viscosity": 2000.0}
        found = model.outside(given)
        assert not found.is_known and not found.samples.any()
        coarse = {name: a[..., :5, :5] if a.ndim > 2 else a for name, a in by_name(samples(2)).items()}
        assert model.outside(coarse).reasons == ("the grid is 5x5; training saw 8x6",)
        data = StoredDataModule(samples=samples(), batch_size=6, validation=None, rank=0, world_size=1, seed=0)
        result = fit(
            surrogate=old.surrogate,
            training=TrainingSpec(steps=3, batch_size=6),
            schema=SCHEMA,
            data=data,
            checkpoint_dir=tmp_path / "on",
            resume=tmp_path / "last.pt",
        )
        assert result.checkpoint is not None and not load(result.checkpoint).valid_range.is_known

    def test_extremes_are_those_of_all_batches(self) -> None:
        values = torch.randn(40, 3, 5, 4)
        extremes = Extremes(3)
        for part in values.split(7):
            extremes.update(part)
        extremes.update(values[:0])
        flat = values.movedim(1, 0).flatten(1).double()
        assert torch.equal(extremes.of_all_ranks(), torch.stack([flat.amin(1), flat.amax(1)]))


class TestLabelled:
    def dataset(self, batch: SampleBatch) -> "object":
        xr = pytest.importorskip("xarray")
        given = by_name(batch)
        return xr.Dataset(
            {
                # In any order of axes: they have names.
                "permeability": (("y", "run", "x"), given["permeability"].transpose(2, 0, 1)),
                "velocity": (("run", "component", "x", "y"), given["velocity"]),
                "viscosity": ("run", given["viscosity"]),
                "traction": (("run", "component"), given["traction"]),
            },
            {"run": np.arange(100, 100 + len(batch)), "x": np.linspace(0, 1, 8), "y": np.linspace(0, 2, 6)},
        )

    def test_a_dataset_gives_a_dataset(self, model: TrainedSurrogate) -> None:
        batch = samples(3)
        said = model.predict(self.dataset(batch))  # type: ignore[call-overload]
        expected = model.predict(by_name(batch))
        assert said["pressure"].dims == ("run", "time", "x", "y")
        assert said["flux"].dims == ("run", "time", "component", "x", "y")
        assert np.array_equal(said["pressure"], expected["pressure"])
        assert np.array_equal(said["flux"], expected["flux"])
        assert said["pressure"].attrs["units"] == "Pa"
        assert said["run"].values.tolist() == [100, 101, 102] and said["time"].values.tolist() == [0.5, 1.0, 1.5]
        assert np.allclose(said["y"], np.linspace(0, 2, 6)) and not said["outside_training"].any()

    def test_outside_is_a_flag(self, model: TrainedSurrogate) -> None:
        given = self.dataset(samples(3))
        given["viscosity"][1] = 2000.0  # type: ignore[index]
        with pytest.warns(OutsideTraining):
            said = model.predict(given)  # type: ignore[call-overload]
        assert said["outside_training"].values.tolist() == [False, True, False]
        assert "viscosity is 2000 in sample 1" in said["outside_training"].attrs["reasons"]

    def test_one_sample_and_other_names(self, model: TrainedSurrogate) -> None:
        one = self.dataset(samples(3)).isel(run=0)  # type: ignore[attr-defined]
        assert model.predict(one)["flux"].dims == ("time", "component", "x", "y")
        with pytest.raises(InputError, match="permeability is with the axes .*rename"):
            model.predict(one.rename(x="east"))
        with pytest.raises(InputError, match=r'inputs is with "porosity"'):
            model.predict(one.assign(porosity=1.0))

    def test_other_coordinates_are_refused(self, model: TrainedSurrogate) -> None:
        given = self.dataset(samples(2)).assign_coords(y=np.linspace(0, 3, 6))  # type: ignore[attr-defined]
        with pytest.raises(InputError, match="coordinate y is 0.0 to 3.0 in 6 points; expected 0 to 2 in equal steps"):
            model.predict(given)

    def test_a_data_array_is_the_one_field(self, tmp_path: Path, make_schema: Callable[..., SampleSchema]) -> None:
        xr = pytest.importorskip("xarray")
        schema = dataclasses.replace(make_schema((8, 6)), inputs=(FieldSpec(name="permeability"),))
        model = untrained(schema, tmp_path)
        array = xr.DataArray(np.ones((8, 6)), dims=("x", "y"))
        assert model.predict(array)["pressure"].dims == ("x", "y")
        with pytest.raises(InputError, match='inputs is called "source"; expected the field permeability'):
            model.predict(array.rename("source"))


def untrained(schema: SampleSchema, folder: Path, **changes: object) -> TrainedSurrogate:
    """A checkpoint of a small network that learned nothing."""
    surrogate, training = FNO(modes=2, width=2, layers=1), TrainingSpec()
    parts = {"surrogate": surrogate, "strategy": training.strategy} | changes
    seen = parts["strategy"].network_schema(schema, parts["surrogate"].capabilities)  # type: ignore[attr-defined]
    from headrace.surrogates.normalizer import Normalizer

    checkpoint = Checkpoint(
        step=0,
        normalization=training.normalization,
        training={},
        schema=schema,
        weights=parts["surrogate"].build(seen).state_dict(),  # type: ignore[attr-defined]
        moments=Normalizer(training.normalization, seen).state_dict(),
        optimizer={},
        schedule={},
        **parts,  # type: ignore[arg-type]
    )
    save_checkpoint(folder / "last.pt", checkpoint)
    return load(folder / "last.pt")


def test_time_conditioned_surrogates_are_asked_for_any_time(tmp_path: Path) -> None:
    model = untrained(SCHEMA, tmp_path, strategy=TimeConditioned())
    batch = samples(2)
    whole = model.predict(batch.inputs, batch.parameters)
    some = model.predict(batch.inputs, batch.parameters, times=[1.0, 0.7, 0.5])
    assert np.array_equal(some[:, [0, 2]], whole[:, [1, 0]]) and not np.array_equal(some[:, 1], some[:, 2])
    with pytest.warns(OutsideTraining, match="time is 9; training saw 0.5 to 1.5"):
        model.predict(batch.inputs, batch.parameters, times=[9.0])


def test_a_problem_without_fields_is_asked_by_its_parameters(tmp_path: Path) -> None:
    schema = dataclasses.replace(SCHEMA, inputs=(), times=(1.0,))
    model = untrained(schema, tmp_path, surrogate=MLP())
    assert model.predict({"viscosity": [1.0, 2.0], "traction": [0.0, 1.0]})["pressure"].shape == (2, 8, 6)
    assert model.predict({"viscosity": 1.0, "traction": [0.0, 1.0]})["pressure"].shape == (8, 6)


def test_a_batch_that_does_not_fit_is_halved(model: TrainedSurrogate, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, sizes = samples(), []
    expected = model.predict(batch.inputs, batch.parameters)
    forecast = type(model.predictor)._forecast

    def small(self: object, inputs: np.ndarray, *rest: object) -> np.ndarray:
        sizes.append(len(inputs))
        if len(inputs) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forecast(self, inputs, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(type(model.predictor), "_forecast", small)
    monkeypatch.setattr(type(model.predictor), "_batch_size", lambda self, points: 16)
    assert np.allclose(model.predict(batch.inputs, batch.parameters), expected, atol=1e-5)
    assert sizes == [12, 8, 4, 4, 4]
    with pytest.raises(torch.OutOfMemoryError):
        model.predict(batch.inputs, batch.parameters, batch_size=12)


def test_the_file_holds_plain_tensors(folder: Path) -> None:
    content = torch.load(folder / "last.pt", weights_only=True)
    assert json.loads(content["schema"])["times"] == [0.5, 1.0, 1.5]
    assert {name: tuple(bounds.shape) for name, bounds in content["ranges"].items()} == {
        "inputs": (2, 3),
        "parameters": (2, 3),
    }
