"""`headrace import`: what it prints, what it refuses, and that its page tells the truth."""

import json
import re
import shlex
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.lib import format as npy

from headrace.pipelines.cli import main
from headrace.platform.dataset.reader import StoredSamples
from headrace.solvers import Darcy
from headrace.surrogates.intake.writing import shares

PAGE = Path(__file__).parents[2] / "docs" / "my-data.md"
STEADY = ("--axes", "sample,x", "--extent", "1", "--periodic", "x")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def headrace(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments], catch_exceptions=False)


def test_the_page_runs_as_printed(here: Path) -> None:
    names: dict[str, Any] = {}
    printed, first = [], ""
    for language, block in re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        if language == "python":
            exec(block, names)
        elif language == "shell":
            for command in block.replace("\\\n", " ").strip().splitlines():
                done = headrace(*shlex.split(command)[1:])
                assert done.exit_code == 0, (command, done.stderr)
                printed.append(done.stdout)
        else:
            first = block
    lines = [re.sub(r"\s+", " ", line).strip() for line in first.splitlines() if "│" in line or "grid" in line]
    shown = re.sub(r"[^\S\n]+", " ", printed[0])
    assert len(lines) == 5 and all(line in shown for line in lines), shown
    sets = {path.name: len(StoredSamples.open(path)) for path in (here / "waves-again").iterdir()}
    assert sets == {"train": 8, "validation": 1, "test": 1}
    schema = StoredSamples.open(here / "waves-again" / "train").schema
    assert [spec.unit for spec in schema.outputs] == ["m", "m2/s"] and len(schema.times) == 20
    assert {path.name for path in (here / "both").iterdir()} == {"train", "test"}


def test_the_options_that_the_page_names_are_those_there_are() -> None:
    shown = set(re.findall(r"--[a-z]+", headrace("import", "--help").stdout)) - {"--help", "--json"}
    assert shown - set(re.findall(r"--[a-z]+", PAGE.read_text(encoding="utf-8"))) == {"--index"}


def test_it_tells_before_it_writes_and_json_has_the_same(here: Path) -> None:
    np.savez("d.npz", x=np.linspace(-1, 1, 24).reshape(6, 4), y=np.ones((6, 4)))
    done = headrace("import", "d.npz", "--input", "x", "--output", "y", *STEADY, "--out", "o", "--json")
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["sets"] == {"d": 6}
    assert answer["fields"][0]["smallest"] == -1 and answer["fields"][0]["shape"] == "sample 6, x 4"
    assert "x 4 over 1, periodic" in done.stdout and "a train and a test set: --split 0.8,0.1,0.1" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-"], "- (standard input); expected a file or a folder that exists. Write it to a file first"),
        (["x" * 300], "File name too long"),
        (["d.npz", "--out", "x" * 300], "File name too long"),
        (["d.npz", "--input", "x", "--output", "y", *STEADY, "--out", "/proc/x/y"], "/proc"),
        (["d.npz", "--layout", "nowhere.yaml"], "--layout is nowhere.yaml; expected a YAML file"),
        (["d.npz", "--layout", "bad.yaml"], "bad.yaml.fields.0.role is "),
        (["d.npz", "--axes", "q=sample,x", "--input", "x"], '--axes is of "q"; expected a field that is named: x'),
        (["d.npz", "--extent", "one"], '--extent is "one"; expected numbers between commas'),
        (["d.npz", "--extent", "-1"], "--extent"),
        (["d.npz", "--split", "1"], "two shares (train, test) or three"),
        (["d.npz", "--split", "0.5,0.6"], "add up to 1"),
        (["d.npz", "--location", "edges"], "--location"),
        (["d.npz", "--as", "../x"], "--as"),
        (["d.npz", "--input", "x", "--channels", "x=a"], "--channels"),
        (["d.npz", "--input", "=x"], "--name"),
        (["d.npz", "--format", "npx"], 'Did you mean "npz"'),
        (["d.xyz"], "It is a NumPy archive: give --format npz."),
        (["d.npz", "text.txt", "--input", "x", "--output", "y", *STEADY], "text.txt is a text file"),
        (["folder", "d.npz"], "a folder beside other files"),
    ],
)
def test_what_is_refused_in_a_sentence(here: Path, arguments: list[str], words: str) -> None:
    np.savez("d.npz", x=np.ones((6, 4)), y=np.ones((6, 4)))
    Path("d.npz").with_suffix(".xyz").write_bytes(Path("d.npz").read_bytes())
    Path("text.txt").write_text("no data")
    Path("bad.yaml").write_text("fields: [{name: x, role: inputs}]")
    (here / "folder").mkdir()
    out = [] if "--out" in arguments else ["--out", "o"]
    done = headrace("import", *arguments, *out)
    assert done.exit_code == 2 and "Traceback" not in done.output
    assert words in done.stderr, done.stderr
    assert not (here / "o").exists()


def test_options_win_over_the_file(here: Path) -> None:
    np.savez("d.npz", x=np.ones((6, 4)), y=np.ones((6, 4)))
    Path("l.yaml").write_text(
        "fields: [{name: x, role: input}, {name: y, role: output}]\nextent: [1]\naxes: [sample, s]\n"
    )
    done = headrace(
        "import", "d.npz", "--layout", "l.yaml", "--extent", "3", "--periodic", "all", "--unit", "y=K", "--out", "o"
    )
    assert done.exit_code == 0, done.stderr
    schema = StoredSamples.open(here / "o" / "d").schema
    assert schema.domain.extent == (3.0,) and schema.outputs[0].unit == "K"  # type: ignore[union-attr]


def test_a_split_is_by_sample_seeded_and_exact(here: Path) -> None:
    u = np.arange(50)[:, None, None] + np.zeros((50, 3, 8))
    np.savez("d.npz", u=u)
    rest = ("--state", "u", "--axes", "sample,time,x", "--dt", "1", "--extent", "1", "--periodic", "x")
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        headrace("import", "d.npz", *rest, "--split", "0.5,0.25,0.25", "--seed", seed, "--out", out)
    found = {
        out: {name: StoredSamples.open(here / out / name).read_all() for name in ("train", "validation", "test")}
        for out in "abc"
    }
    for sets in found.values():
        assert [len(batch) for batch in sets.values()] == [25, 13, 12]
        assert sorted(int(index) for batch in sets.values() for index in batch.indices) == list(range(50))
        for batch in sets.values():
            np.testing.assert_array_equal(batch.outputs[:, 0, 0, 0], batch.indices)
    assert found["a"]["train"].indices.tolist() == found["b"]["train"].indices.tolist()
    assert found["a"]["train"].indices.tolist() != found["c"]["train"].indices.tolist()


def test_imported_data_have_the_schema_of_a_streamed_problem(here: Path) -> None:
    problem = Darcy(resolution=17)
    np.savez("d.npz", a=np.ones((4, 17, 17)), p=np.ones((4, 17, 17)))
    names = ("--input", "permeability=a", "--output", "pressure=p", "--axes", "sample,x,y")
    grid = ("--extent", "1,1", "--periodic", "none", "--location", "nodes")
    done = headrace("import", "d.npz", *names, *grid, "--out", "o")
    assert done.exit_code == 0, done.stderr
    assert StoredSamples.open(here / "o" / "d").schema == problem.schema()


def test_shares_are_by_largest_remainder() -> None:
    counts = shares(10, {"train": 0.75, "validation": 0.125, "test": 0.125}, 0, "").counts
    assert counts == {"train": 8, "validation": 1, "test": 1}


@pytest.mark.parametrize("kind", ["npz", "compressed", "h5"])
def test_memory_does_not_grow_with_the_file(here: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.surrogates.intake.piece.NBYTES", 2**18)
    monkeypatch.setattr("headrace.pipelines.importing.console.print", lambda *args, **kwargs: None)
    peaks = []
    for count in (300, 1500):
        shape = (count, 2048)  # 8 kB a sample: 2 MB and 12 MB, and again as much when it is an output in parts
        name = f"u{count}.{kind.replace('compressed', 'npz')}"
        if kind == "h5":
            with h5py.File(name, "w") as file:
                file.create_dataset("u", shape, np.float32, chunks=(8, 2048), fillvalue=1.0)
        else:
            method = zipfile.ZIP_DEFLATED if kind == "compressed" else zipfile.ZIP_STORED
            with zipfile.ZipFile(name, "w", method, compresslevel=1) as archive, archive.open("u.npy", "w") as member:
                npy.write_array(member, np.ones(shape, np.float32))
        tracemalloc.start()
        done = headrace("import", name, "--output", "u", *STEADY, "--out", f"o{count}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert done.exit_code == 0, done.stderr
    # 10 MB more if it were read at once. What grows is the list of where each sample came from.
    assert peaks[1] - peaks[0] < 4e6, peaks
