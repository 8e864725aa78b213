"""`headrace predict`: what it reads and writes, what it refuses, and what it says of inputs outside of training's."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from headrace.pipelines.cli import main
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.surrogates import FNO, TrainedSurrogate, TrainingSpec, load
from headrace.surrogates.checkpoint import Checkpoint, save_checkpoint
from headrace.surrogates.normalizer import Normalizer

SCHEMA = SampleSchema(
    inputs=(FieldSpec(name="permeability"),),
    outputs=(FieldSpec(name="pressure"),),
    parameters=(FieldSpec(name="viscosity"),),
    domain=Grid(shape=(8, 6), extent=(1.0, 1.0), periodic=(False, False)),
    times=(0.5, 1.0),
)
SEEN = {"inputs": torch.tensor([[0.5], [4.0]]), "parameters": torch.tensor([[1.0], [5.0]])}


def write(path: Path, seen: dict[str, torch.Tensor] | None) -> None:
    surrogate, training = FNO(modes=2, width=2, layers=1), TrainingSpec()
    checkpoint = Checkpoint(
        step=0,
        surrogate=surrogate,
        normalization=training.normalization,
        strategy=training.strategy,
        training={},
        schema=SCHEMA,
        weights=surrogate.build(SCHEMA).state_dict(),
        moments=Normalizer(training.normalization, SCHEMA).state_dict(),
        optimizer={},
        schedule={},
        ranges=seen,
    )
    save_checkpoint(path, checkpoint)


@pytest.fixture
def model(in_folder: Path) -> TrainedSurrogate:
    """A checkpoint `model.pt` in the folder, of a network that saw permeability .5 to 4 and viscosity 1 to 5."""
    write(in_folder / "model.pt", SEEN)
    return load("model.pt")


def predict(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["predict", *map(str, arguments), "--json"], catch_exceptions=False)


FIELD = np.linspace(0.5, 4.0, 3 * 8 * 6).reshape(3, 8, 6)
VISCOSITY = np.array([1.0, 2.0, 5.0])


class TestFiles:
    def test_arrays_in_an_npz_give_outputs(self, model: TrainedSurrogate) -> None:
        np.savez("in.npz", inputs=FIELD[:, None], parameters=VISCOSITY[:, None])
        done = predict("model.pt", "in.npz", "--out", "out.npz")
        assert done.exit_code == 0 and done.stderr == "", done.output
        answer = json.loads(done.stdout.splitlines()[-1])
        assert answer["shape"] == [3, 2, 1, 8, 6] and answer["outside_training"] == 0 and answer["range_is_known"]
        with np.load("out.npz") as found:
            assert np.array_equal(found["outputs"], model.predict(FIELD[:, None], VISCOSITY[:, None]))
            assert found["outside_training"].tolist() == [False] * 3 and found["times"].tolist() == [0.5, 1.0]

    @pytest.mark.parametrize("ending", ["npz", "h5"])
    def test_names_give_names(self, model: TrainedSurrogate, ending: str) -> None:
        expected = model.predict({"permeability": FIELD, "viscosity": VISCOSITY}, times=[1.0])["pressure"]
        if ending == "npz":
            np.savez("in.npz", permeability=FIELD, viscosity=VISCOSITY)
        else:
            with h5py.File("in.h5", "w") as file:
                file["permeability"], file["viscosity"] = FIELD, VISCOSITY
        done = predict("model.pt", f"in.{ending}", "--out", f"out.{ending}", "--times", "1.0")
        assert done.exit_code == 0, done.output
        found = dict(np.load("out.npz")) if ending == "npz" else {k: v[()] for k, v in h5py.File("out.h5").items()}
        assert np.array_equal(found["pressure"], expected) and expected.shape == (3, 1, 8, 6)
        assert found["times"].tolist() == [1.0]

    def test_netcdf_keeps_its_coordinates(self, model: TrainedSurrogate) -> None:
        xr = pytest.importorskip("xarray")
        given = xr.Dataset(
            {"permeability": (("well", "y", "x"), FIELD.transpose(0, 2, 1)), "viscosity": ("well", VISCOSITY)},
            {"well": [7, 8, 9], "x": np.linspace(0, 1, 8), "y": np.linspace(0, 1, 6)},
        )
        given.to_netcdf("in.nc", engine="h5netcdf")
        done = predict("model.pt", "in.nc", "--out", "out.nc")
        assert done.exit_code == 0, done.output
        with xr.open_dataset("out.nc", engine="h5netcdf") as found:
            assert found["pressure"].dims == ("well", "time", "x", "y") and found["well"].values.tolist() == [7, 8, 9]
            assert np.allclose(found["pressure"], model.predict(given)["pressure"])

    def test_fields_of_one_channel_need_no_axis_of_channels(self, model: TrainedSurrogate) -> None:
        np.savez("in.npz", inputs=FIELD, parameters=[2.0])
        assert predict("model.pt", "in.npz", "--out", "out.npy").exit_code == 0
        assert np.array_equal(np.load("out.npy"), model.predict(FIELD[:, None], np.full((3, 1), 2.0)))


def with_value(value: object, dtype: object = np.float64) -> np.ndarray:
    field = FIELD.astype(dtype)
    field[1, 2, 3] = value
    return field


class TestRefusal:
    """Fault 9: each was taken before, with exit 0 or a traceback."""

    @pytest.mark.parametrize(
        ("arrays", "words"),
        [
            ({"permeability": with_value(1e39)}, "inputs (permeability) is 1e+39 in sample 1, point (2, 3)"),
            ({"permeability": with_value(np.nan)}, "inputs (permeability) is nan in sample 1, point (2, 3)"),
            ({"viscosity": np.array([1.0, np.inf, 1.0])}, "parameters (viscosity) is inf in sample 1"),
            ({"permeability": with_value(1j, complex)}, "permeability is complex numbers; expected real numbers"),
            ({"permeability": FIELD.astype("timedelta64[s]")}, "permeability is lengths of time"),
            ({"permeability": np.array([["a"]])}, "permeability is of type <U1; expected real numbers"),
            ({"permeability": np.ones((3, 0, 6))}, "at least one point along every axis of the grid"),
            ({"permeability": np.ones((0, 8, 6)), "viscosity": 1.0}, "at least one sample. It holds none"),
            ({"permeability": np.ones(7)}, "permeability is of shape (7,)"),
            ({"porosity": FIELD}, 'inputs is with "porosity"'),
            (
                {"inputs": FIELD, "parameter": VISCOSITY},
                "in.npz with parameter, permeability, viscosity beside",
            ),
        ],
    )
    def test_exits_with_2_and_a_sentence(self, model: TrainedSurrogate, arrays: dict[str, object], words: str) -> None:
        np.savez("in.npz", **{"permeability": FIELD, "viscosity": VISCOSITY, **arrays})  # type: ignore[arg-type]
        done = predict("model.pt", "in.npz", "--out", "out.npz")
        assert done.exit_code == 2 and words in done.stderr, done.output
        assert "Traceback" not in done.output and not Path("out.npz").exists()

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("nowhere", "in.npz", "--out", "out.npz"), "with a run.json in it; a checkpoint; or a model of MLflow"),
            (("model.pt", "none.npz", "--out", "out.npz"), "It cannot be read: "),
            (("model.pt", "in.csv", "--out", "out.npz"), "INPUT is in.csv; expected a file of arrays"),
            (("model.pt", "objects.npy", "--out", "out.npz"), "it holds Python objects, or is damaged"),
            (
                ("model.pt", "in.npz", "--out", "out.txt"),
                "a new file that ends in .npz, .npy, .h5, .hdf5, .nc, in",
            ),
            (("model.pt", "in.npz", "--out", "no/out.npz"), "no is not there"),
            (("model.pt", "in.npz", "--out", "out.npz", "--times", "a"), '--times is "a"; expected numbers'),
            (("model.pt", "in.npz", "--out", "out.npz", "--times", "0.7"), "times is 0.7; expected some of 0.5, 1"),
        ],
    )
    def test_of_files_and_options(self, model: TrainedSurrogate, arguments: tuple[str, ...], words: str) -> None:
        np.savez("in.npz", permeability=FIELD, viscosity=VISCOSITY)
        np.save("objects.npy", np.array([{}]), allow_pickle=True)
        Path("in.csv").write_text("1,2")
        done = predict(*arguments)
        assert done.exit_code == 2 and words in done.stderr, done.output


class TestOutside:
    """Fault 10: all accepted without a word before."""

    @pytest.mark.parametrize(
        ("arrays", "reason", "flags"),
        [
            (
                {"permeability": with_value(-3.0)},
                "permeability is -3 in sample 1; training saw 0.5 to 4",
                [False, True, False],
            ),
            (
                {"viscosity": np.array([1.0, 2.0, 2000.0])},
                "viscosity is 2000 in sample 2; training saw 1 to 5",
                [False, False, True],
            ),
            ({"permeability": FIELD[:, :5, :5]}, "the grid is 5x5; training saw 8x6", [True, True, True]),
        ],
    )
    def test_is_told_flagged_and_refused_if_asked(
        self, model: TrainedSurrogate, arrays: dict[str, np.ndarray], reason: str, flags: list[bool]
    ) -> None:
        np.savez("in.npz", **{"permeability": FIELD, "viscosity": VISCOSITY, **arrays})
        done = predict("model.pt", "in.npz", "--out", "out.npz")
        assert done.exit_code == 0 and f"outside of what training saw: {reason}" in done.stderr
        assert json.loads(done.stdout.splitlines()[-1])["reasons"] == [reason]
        with np.load("out.npz") as found:
            assert found["outside_training"].tolist() == flags and found["outside_reasons"].tolist() == [reason]
        strict = predict("model.pt", "in.npz", "--out", "strict.npz", "--strict")
        assert strict.exit_code == 2 and reason in strict.stderr and not Path("strict.npz").exists()

    def test_an_npy_has_no_place_for_flags(self, model: TrainedSurrogate) -> None:
        np.savez("in.npz", permeability=with_value(-3.0), viscosity=VISCOSITY)
        done = predict("model.pt", "in.npz", "--out", "out.npy")
        assert done.exit_code == 0 and "a .npy file has no place for the flags" in done.stderr

    def test_a_range_that_is_not_known_is_said(self, in_folder: Path) -> None:
        write(in_folder / "old.pt", None)
        np.savez("in.npz", permeability=with_value(-3.0), viscosity=VISCOSITY)
        done = predict("old.pt", "in.npz", "--out", "out.npz")
        assert done.exit_code == 0 and "what training saw is not known: Headrace" in done.stderr
        assert not json.loads(done.stdout.splitlines()[-1])["range_is_known"]
        strict = predict("old.pt", "in.npz", "--out", "strict.npz", "--strict")
        assert strict.exit_code == 2 and "a checkpoint that tells it" in strict.stderr
