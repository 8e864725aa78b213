"""`headrace export`: a folder with all files, or none; every format by its name."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from headrace.pipelines.cli import main
from headrace.pipelines.interchange import export_data
from headrace.platform.dataset.manifest import read_manifest
from headrace.platform.dataset.reader import StoredSamples
from headrace.platform.dataset.writer import write_dataset
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.sample import SampleBatch

SCHEMA = SampleSchema(
    inputs=(FieldSpec(name="permeability", unit="m^2"),),
    outputs=(FieldSpec(name="pressure", unit="Pa"),),
    domain=Grid(shape=(6, 5), extent=(1.0, 2.0), periodic=(False, True)),
)


def headrace(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def data(in_folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", 9), ("validation", 3), ("test", 4)):
        batch = SampleBatch(
            indices=np.arange(count),
            inputs=rng.random((count, 1, 6, 5), np.float32),
            outputs=rng.random((count, 1, 1, 6, 5), np.float32),
            parameters=np.empty((count, 0), np.float32),
        )
        write_dataset(in_folder / "mine" / split, SCHEMA, [batch], {})
    return in_folder / "mine"


@pytest.mark.parametrize("name", ["well", "the_well", "pdebench", "neuraloperator", "hdf5", "netcdf"])
def test_what_is_exported_by_a_name_is_imported_as_the_same(data: Path, name: str) -> None:
    done = headrace("export", data, "--format", name, "--out", "out/files", "--json")
    files = json.loads(done.stdout)["files"]
    assert len(files) == 3 and all(Path(file).is_file() for file in files)
    done = headrace("import", "out/files", "--format", name, "--out", "in", "--json")
    # The library's file names have the resolution in them, and test sets keep it.
    test = "test_6x5" if name == "neuraloperator" else "test"
    assert json.loads(done.stdout.splitlines()[-1])["sets"] == {"train": 9, "validation": 3, test: 4}
    for split, found in (("train", "train"), ("validation", "validation"), ("test", test)):
        before, after = read_manifest(data / split), read_manifest(Path("in") / found)
        assert before is not None and after is not None
        assert (before.content_hash, before.schema) == (after.content_hash, after.schema)


@pytest.mark.parametrize("out", ["new/below", "there"])
def test_an_export_that_breaks_is_not_seen(data: Path, out: str) -> None:
    Path("there").mkdir()
    written = StoredSamples.batches

    def batches(self: StoredSamples, size: int) -> Iterator[SampleBatch]:
        if self.directory.name == "train":  # the second one; before it, test is written whole
            raise KeyboardInterrupt
        yield from written(self, size)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(StoredSamples, "batches", batches)
        export_data(data, "hdf5", Path(out))
    assert sorted(path.name for path in Path().iterdir()) == ["mine", "there"] and not list(Path("there").iterdir())
    assert [file.name for file in export_data(data, "hdf5", Path(out).absolute())] == [
        f"mine_{split}.h5" for split in ("test", "train", "validation")
    ]


def test_a_format_that_is_only_read_says_which_are_written(data: Path) -> None:
    done = headrace("export", data, "--format", "npz", "--out", "out")
    assert done.exit_code == 2
    assert '"npz", which is only read; expected one of neuraloperator, the_well, pdebench, hdf5, netcdf' in done.stderr
