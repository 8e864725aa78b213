"""External programs: what they are asked, what they may answer, how each fault is told. No process is left behind."""

import contextlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import pytest
from pydantic import ValidationError

from headrace.pipelines.recipe.config import validate
from headrace.platform.errors import InputError
from headrace.platform.sample import Failure, Request, Sample
from headrace.solvers.external.request import CLIENT_FOLDER
from headrace.solvers.external.spec import External
from headrace.solvers.sources.programs import ExternalSource
from headrace.solvers.sources.report import SourceReport

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Scratch folders lie where a test can see whether they are gone."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def problem(command: list[str], **values: Any) -> External:
    return External.model_validate(
        {
            "command": command,
            "timeout_seconds": 30.0,
            "parameters": {"strength": {"low": 1.0, "high": 2.0}},
            "outputs": {"u": {}},
            "grid": {"shape": [3, 4]},
            **values,
        }
    )


def python(tmp_path: Path, text: str, name: str = "program.py", **values: Any) -> External:
    """A program in Python, which may import the client."""
    (tmp_path / name).write_text(textwrap.dedent(text))
    return problem([sys.executable, str(tmp_path / name)], **values)


def shell(text: str, **values: Any) -> External:
    return problem(["/bin/sh", "-c", text.replace("{", "{{").replace("}", "}}")], **values)


def results(spec: External, indices: list[int] | range = range(1), **values: Any) -> list[Sample | Failure]:
    return list(ExternalSource(problem=spec, **values).samples(list(indices)))


def only(spec: External, **values: Any) -> Sample:
    (found,) = results(spec, **values)
    assert isinstance(found, Sample), found
    return found


def reason(spec: External, **values: Any) -> str:
    (found,) = results(spec, **values)
    assert isinstance(found, Failure), found
    return found.reason


SQUARE = """
    from headrace_client import finalize, init, send

    while run := init():
        import numpy as np
        rng = np.random.default_rng(run.seed)
        send(run, "u", run.parameters["strength"] * rng.random(run.shape))
        print("talk that is no answer")
        finalize(run, relative_residual=1e-9, num_iterations=7)
"""


@pytest.mark.parametrize("protocol", ["files", "pipe"])
def test_a_sample_depends_on_its_index_alone(tmp_path: Path, scratch: Path, protocol: str) -> None:
    spec = python(tmp_path, SQUARE, protocol=protocol)
    source = ExternalSource(problem=spec, seed=5)
    assert pickle.loads(pickle.dumps(source)) == source
    assert ExternalSource.model_validate_json(source.model_dump_json()) == source
    one = {found.provenance.index: found for found in source.samples([0, 1, 2])}  # type: ignore[union-attr]
    other = {found.provenance.index: found for found in source.samples([2, 0])}  # type: ignore[union-attr]
    for index, sample in other.items():
        assert np.array_equal(sample.outputs, one[index].outputs)
        assert np.array_equal(sample.parameters, one[index].parameters)
    assert not np.array_equal(one[0].outputs, one[1].outputs)
    assert not np.array_equal(only(spec, split="test", seed=5).outputs, one[0].outputs)
    assert not np.array_equal(only(spec, seed=6).outputs, one[0].outputs)
    sample = one[0]
    # The default input is the parameter as a constant field, exactly as it is stored.
    assert np.array_equal(sample.inputs, np.full((1, 3, 4), sample.parameters[0]))
    assert sample.outputs.shape == (1, 1, 3, 4) and sample.outputs.dtype == np.float32
    provenance = sample.provenance
    assert provenance.solver == f"external: {Path(sys.executable).name}"
    assert (provenance.status, provenance.relative_residual, provenance.num_iterations) == ("unverified", 1e-9, 7)
    assert provenance.wall_seconds > 0 and provenance.cpu_seconds > 0


def test_both_protocols_make_the_same_samples(tmp_path: Path) -> None:
    files, pipe = (only(python(tmp_path, SQUARE, protocol=protocol)) for protocol in ("files", "pipe"))
    assert np.array_equal(files.outputs, pipe.outputs)


def programs() -> list[psutil.Process]:
    """The external programs below this process, and their guards; a Ray cluster of other tests may be there as well."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(word.endswith("program.py") for word in one.cmdline()):
                found.append(one)
    return found


def test_folders_are_gone_and_programs_end_with_their_source(tmp_path: Path, scratch: Path) -> None:
    results(python(tmp_path, SQUARE))
    assert not list(scratch.iterdir())
    spec = ExternalSource(problem=python(tmp_path, SQUARE, protocol="pipe"))
    source = spec.build()
    assert len(list(source.solve(spec.requests([0, 1])))) == 2
    (folder,) = scratch.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["stderr.txt", "stdout.txt"]
    below = programs()
    assert below
    report = SourceReport.from_json(source.report())
    assert (report.samples, report.failed) == (2, 0)
    assert report.to_json() == source.report()
    json.dumps(source.report(), allow_nan=False)
    del source
    _, alive = psutil.wait_procs(below, timeout=20)
    assert not alive and not list(scratch.iterdir())


def test_splits_and_levels_share_a_program_that_is_kept(tmp_path: Path) -> None:
    spec = python(tmp_path, SQUARE, protocol="pipe")
    levels = {"strong": {"parameters": {"strength": {"low": 1e3, "high": 1e4}}}}
    values: dict[str, Any] = {"problem": spec, "mix": {"default": 1, "strong": 1}, "levels": levels}
    specs = [ExternalSource(split=split, **values) for split in ("train", "test")]  # type: ignore[arg-type]
    built = [(spec, spec.build()) for spec in specs]
    found = [sample for spec, source in built for sample in source.solve(spec.requests(range(8)))]
    assert all(isinstance(sample, Sample) for sample in found)
    for sample in found:
        assert isinstance(sample, Sample)
        assert (sample.parameters[0] >= 1e3) == (sample.provenance.level == "strong")
    assert {sample.provenance.level for sample in found if isinstance(sample, Sample)} == {"default", "strong"}
    assert len([one for one in programs() if not any("guard.py" in word for word in one.cmdline())]) == 1


def test_parameters_stay_within_their_bounds_and_fill_them(tmp_path: Path) -> None:
    values = {"parameters": {"nu": {"low": 1e-3, "high": 0.1, "scale": "log"}, "n": {"low": 0.1, "high": 0.1}}}
    spec = problem(["true"], **values)
    rng = np.random.default_rng(0)
    drawn = np.array([spec.parameters["nu"].draw(rng) for _ in range(4000)])
    assert drawn.min() >= 1e-3 and drawn.max() <= 0.1
    assert np.array_equal(drawn, drawn.astype(np.float32))
    # Of the logarithm, each decade gets half; the standard deviation of its share is 0.008.
    assert abs(np.mean(drawn < 1e-2) - 0.5) < 0.04
    assert spec.parameters["n"].draw(rng) == np.float32(0.1)


def test_a_program_without_the_client_reads_words_and_writes_files(tmp_path: Path) -> None:
    text = """
        import json, sys
        import h5py
        import numpy as np
        folder, request, index, seed, level, strength = sys.argv[1:]
        asked = json.load(open(request))
        assert (asked["index"], asked["seed"], asked["level"]) == (int(index), int(seed), level)
        assert asked["parameters"]["strength"] == float(strength)
        u = np.arange(24.0).reshape(2, 3, 4)
        np.save("u.npy", u[:, None])                       # in the current folder, which is the scratch folder
        np.savez(f"{folder}/more.npz", v=np.stack([u, -u], axis=1))
        np.savetxt("w.txt", u.reshape(6, 4))
        with h5py.File("f.h5", "w") as file:
            file["group/force"] = np.ones((3, 4), ">f4")
    """
    words = ["{folder}", "{request}", "{index}", "{seed}", "{level}", "{strength}"]
    spec = python(
        tmp_path,
        text,
        times=[0.5, 1.0],
        inputs={"force": {"file": "f.h5", "dataset": "group/force"}},
        outputs={
            "u": {"file": "u.npy"},
            "v": {"file": "more.npz", "dataset": "v", "components": 2},
            "w": {"file": "w.txt"},
        },
    )
    sample = only(spec.model_copy(update={"command": (*spec.command, *words)}))
    u = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
    assert np.array_equal(sample.outputs, np.stack([u, u, -u, u], axis=1))
    assert np.array_equal(sample.inputs, np.ones((1, 3, 4)))
    assert np.isnan(sample.provenance.relative_residual) and sample.provenance.num_iterations == 0


def test_a_value_never_becomes_another_word(tmp_path: Path) -> None:
    text = """
        import json, sys
        from pathlib import Path
        Path(sys.argv[1]).write_text(json.dumps(sys.argv[2:]))
    """
    level = "a b; touch /tmp/x $(id) `id` {seed} \"q\" 'q' \n parameter strength 9"
    spec = python(tmp_path, text, environment={"EMPTY": ""})
    command = (*spec.command, str(tmp_path / "words.json"), "{level}", "--x={strength}", "{{braces}}")
    spec = spec.model_copy(update={"command": command})
    found = results(spec, mix={level: 1}, levels={level: {"parameters": {"strength": {"low": -3, "high": -2}}}})
    assert isinstance(found[0], Failure) and "without finalize" in found[0].reason
    words = json.loads((tmp_path / "words.json").read_text())
    assert words[0] == level and words[2] == "{braces}" and len(words) == 3
    assert words[1].startswith("--x=-2.")


def test_a_level_cannot_put_lines_into_the_request(tmp_path: Path) -> None:
    text = """
        import os, shutil, sys
        shutil.copy(os.environ["HEADRACE_FOLDER"] + "/request.txt", sys.argv[1])
    """
    spec = python(tmp_path, text)
    spec = spec.model_copy(update={"command": (*spec.command, str(tmp_path / "copy.txt"))})
    level = "x\nparameter strength 9\n" + "y" * 3000
    results(spec, mix={level: 1}, levels={level: {}})
    lines = (tmp_path / "copy.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == [
        "headrace", "split", "index", "seed", "level", "location", "axis", "axis", "time", "parameter", "output",
    ]  # fmt: skip
    assert max(map(len, lines)) < 256


# Faults of a program, each with its words. Then the next sample is made as if nothing had been.


@pytest.mark.parametrize(
    ("script", "values", "words"),
    [
        ("echo one; echo 'no mesh' >&2; exit 3", {}, "sh ended with exit code 3; it said: no mesh"),
        ("echo only this; exit 1", {}, "ended with exit code 1; it said: only this"),
        ("kill -SEGV $$", {}, "sh was killed by SIGSEGV"),
        ("sleep 60", {"timeout_seconds": 0.3}, "took longer than 0.3 s and was stopped"),
        ("true", {}, "ended without finalize"),
        ("true", {"outputs": {"u": {"file": "u.npy"}}}, "u.npy is missing"),
        ("echo 1 2 3 > u.txt", {"outputs": {"u": {"file": "u.txt"}}}, "u.txt has 3 numbers, expected 12"),
        ("echo 1 b 3 > u.txt", {"outputs": {"u": {"file": "u.txt"}}}, "u.txt cannot be read: could not convert"),
        ("echo x > u.npy", {"outputs": {"u": {"file": "u.npy"}}}, "u.npy holds no array of numbers"),
        (": > u.npy", {"outputs": {"u": {"file": "u.npy"}}}, "u.npy cannot be read"),
        (": > u.npz", {"outputs": {"u": {"file": "u.npz", "dataset": "u"}}}, "u.npz[u] cannot be read"),
        (": > u.h5", {"outputs": {"u": {"file": "u.h5", "dataset": "u"}}}, "u.h5[u] cannot be read"),
        ("ln -s /etc/passwd u.txt", {"outputs": {"u": {"file": "u.txt"}}}, "a link that leads out of the scratch"),
        ("ln -s .. d; : > ../u.txt", {"outputs": {"u": {"file": "d/u.txt"}}}, "a link that leads out of the scratch"),
        ("ln -s u.txt u.txt", {"outputs": {"u": {"file": "u.txt"}}}, "u.txt cannot be read"),
        (": > d", {"outputs": {"u": {"file": "d/u.txt"}}}, "d/u.txt cannot be read"),
        ("rm -rf $HEADRACE_FOLDER", {"keep_folders": "always"}, "ended without finalize"),
        ("mkfifo u.txt", {"outputs": {"u": {"file": "u.txt"}}}, "u.txt is not a regular file"),
        ("mkdir u.txt", {"outputs": {"u": {"file": "u.txt"}}}, "u.txt is not a regular file"),
        ("echo '{\"index\": 0, \"sent\": [' > answer.json", {}, "answer.json is not JSON"),
        ("echo '[]' > answer.json", {}, "answer.json holds a list, expected an object"),
        ("echo '{\"sent\": 3}' > answer.json", {}, "the answer has sent = 3, expected a list of names"),
        ("echo '{\"sent\": [\"u.0\"]}' > answer.json", {}, "u.0.npy is missing"),
        ("echo '{\"relative_residual\": NaN}' > answer.json", {}, "relative_residual = nan, expected a finite number"),
        ("echo '{\"num_iterations\": -1}' > answer.json", {}, "num_iterations = -1, expected an integer of at least 0"),
        ("echo '{\"error\": \"diverged\"}' > answer.json", {}, "the program says: diverged"),
    ],
)  # fmt: skip
def test_faults_with_files(scratch: Path, script: str, values: dict[str, Any], words: str) -> None:
    assert words in reason(shell(script, **values))
    assert not [path for path in scratch.iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("body", "values", "words"),
    [
        ('send(run, "u", np.ones(12)); send(run, "v", np.ones(12))', {}, "the recipe has no field 'v' to send"),
        ('send(run, "u", np.ones(11))', {}, "u has 11 values of shape (11,), expected (1, 3, 4)"),
        ('send(run, "u", np.ones(12), time=1)', {}, "time is 1, expected 0 to 0"),
        ('send(run, "u", np.full(12, np.nan))', {}, "u.0.npy has 12 of 12 values that are not finite"),
        ('send(run, "u", np.full(12, 1e39))', {}, "u.0.npy has 12 of 12 values that are not finite"),
        ('send(run, "u", np.ones(12) * 1j)', {}, "u.0.npy holds values of type complex128, expected real numbers"),
        ('send(run, "u", np.ones(12, bool))', {}, "u.0.npy holds values of type bool, expected real numbers"),
        ('send(run, "u", np.full(12, None))', {}, "Object arrays cannot be saved when allow_pickle=False"),
        ('send(run, "u", np.ones(12))', {"times": [1, 2, 3]}, "u was sent at 1 times, expected 3 (1, 2 missing)"),
        ("pass", {}, "u was sent at 0 times, expected 1"),
        ('fail(run, "no \\"steady\\" state")', {}, 'the program says: no "steady" state'),
        ("init()", {}, "init was called again before finalize"),
    ],
)
@pytest.mark.parametrize("protocol", ["files", "pipe"])
def test_faults_through_the_client(
    tmp_path: Path, protocol: str, body: str, values: dict[str, Any], words: str
) -> None:
    text = f"""
        import numpy as np
        import headrace_client
        from headrace_client import fail, finalize, init, send

        while run := init():
            {body}
            if headrace_client._open:
                finalize(run)
    """
    assert words in reason(python(tmp_path, text, protocol=protocol, **values))


@pytest.mark.parametrize(
    ("written", "spec", "words"),
    [
        ("np.ones((4, 3))", {}, "u.npy has shape (4, 3), expected (times, components, *grid) = (1, 1, 3, 4)"),
        ("np.ones((2, 3, 4))", {}, "u.npy has shape (2, 3, 4), expected (times, components, *grid)"),
        ("np.ones((3, 4))", {"components": 2}, "expected (times, components, *grid) = (1, 2, 3, 4)"),
        ("np.full((3, 4), 'x')", {}, "u.npy holds values of type <U1, expected real numbers"),
    ],
)
def test_wrong_arrays_in_files(tmp_path: Path, written: str, spec: dict[str, Any], words: str) -> None:
    text = f"import numpy as np; np.save('u.npy', {written})"
    assert words in reason(python(tmp_path, text, outputs={"u": {"file": "u.npy", **spec}}))


def test_more_times_than_declared_are_told(tmp_path: Path) -> None:
    text = """
        import json, os
        from pathlib import Path
        Path("answer.json").write_text(json.dumps({"sent": ["u.0", "u.1", "u.2"]}))
    """
    words = reason(python(tmp_path, text, times=[1.0, 2.0]))
    assert "u was sent at 3 times, expected 2: 0 to 1" in words
    text = """
        import numpy as np
        np.save("u.npy", np.ones((3, 1, 3, 4)))
    """
    words = reason(python(tmp_path, text, times=[1.0, 2.0], outputs={"u": {"file": "u.npy"}}))
    assert "u.npy has shape (3, 1, 3, 4), expected (times, components, *grid) = (2, 1, 3, 4)" in words
    text = "open('answer.json', 'w').write('{\"sent\": [\"uu.0\"]}')"
    assert 'the field "uu" was sent, expected u.' in reason(python(tmp_path, text))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    text = f"""
        import pickle, sys
        import numpy as np

        class Trap:
            def __reduce__(self):
                return open, ({str(tmp_path / "sprung")!r}, "w")

        if sys.argv[1] == "npy":
            np.save("u.npy", np.full((3, 4), Trap()), allow_pickle=True)
        elif sys.argv[1] == "npz":
            np.savez("u.npz", u=np.full((3, 4), Trap()))
        else:
            pickle.dump(Trap(), open("u.npy", "wb"))
    """
    for how, output in [
        ("npy", {"file": "u.npy"}),
        ("npz", {"file": "u.npz", "dataset": "u"}),
        ("pickle", {"file": "u.npy"}),
    ]:
        spec = python(tmp_path, text, outputs={"u": output})
        found = reason(spec.model_copy(update={"command": (*spec.command, how)}))
        assert "holds no array of numbers; Python objects are never loaded" in found
    assert not (tmp_path / "sprung").exists()


def test_a_header_that_promises_too_much_is_no_danger(tmp_path: Path) -> None:
    text = """
        import numpy as np
        with open("u.npy", "wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<f8", "fortran_order": False, "shape": (10**15, 4)}
            )
            file.write(bytes(64))
    """
    assert "u.npy cannot be read" in reason(python(tmp_path, text, outputs={"u": {"file": "u.npy"}}))


def test_an_hdf5_link_to_another_file_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["u"] = np.ones((3, 4))
    text = f"""
        import h5py
        with h5py.File("u.h5", "w") as file:
            file["u"] = h5py.ExternalLink({str(tmp_path / "secret.h5")!r}, "u")
    """
    assert "a link to another file" in reason(python(tmp_path, text, outputs={"u": {"file": "u.h5", "dataset": "u"}}))


@pytest.mark.parametrize("protocol", ["files", "pipe"])
def test_parameters_that_were_chosen_are_told_to_the_program(tmp_path: Path, scratch: Path, protocol: str) -> None:
    bounds = {"strength": {"low": 1.0, "high": 2.0}, "other": {"low": 0.0, "high": 1.0}}
    source = ExternalSource(problem=python(tmp_path, SQUARE, protocol=protocol, parameters=bounds))
    (drawn,) = source.samples([4])
    (chosen,) = source.build().solve([Request(index=4, level="default", parameters={"strength": 1.75})])
    assert isinstance(drawn, Sample) and isinstance(chosen, Sample)
    assert chosen.parameters.tolist() == [1.75, drawn.parameters[1]], "the other one is drawn as ever"
    np.testing.assert_allclose(chosen.outputs / 1.75, drawn.outputs / drawn.parameters[0], rtol=1e-6)
    with pytest.raises(InputError, match="parameter strength is 3; expected a value from 1 to 2"):
        list(source.build().solve([Request(index=4, level="default", parameters={"strength": 3.0})]))


def test_kept_folders_stay_and_are_named(tmp_path: Path, scratch: Path) -> None:
    for protocol in ("files", "pipe"):
        text = """
            import sys
            from headrace_client import init
            while init():
                print("deep trouble", file=sys.stderr)
                sys.exit(4)
        """
        found = reason(python(tmp_path, text, protocol=protocol, keep_folders="on_failure"))
        kept = Path(found.rpartition("; its folder is ")[2])
        assert kept.is_dir() and kept.parent == scratch
        assert json.loads((kept / "request.json").read_text())["index"] == 0
        assert (kept / "stderr.txt").read_text() == "deep trouble\n"
        shutil.rmtree(kept)
    only(python(tmp_path, SQUARE, keep_folders="on_failure"))
    assert not list(scratch.iterdir())
    only(python(tmp_path, SQUARE, keep_folders="always"))
    (kept,) = scratch.iterdir()
    assert (kept / "u.0.npy").is_file()


# A program that is kept.


def test_a_process_that_dies_is_started_anew(tmp_path: Path) -> None:
    text = """
        import os, signal, sys
        from headrace_client import finalize, init, send
        import numpy as np
        while run := init():
            print(f"I am {os.getpid()}", file=sys.stderr)
            if run.index == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            if run.index == 3:
                sys.exit(5)
            send(run, "u", np.full(12, os.getpid()))
            finalize(run)
    """
    found = results(python(tmp_path, text, protocol="pipe"), range(5))
    assert [isinstance(one, Sample) for one in found] == [True, False, True, False, True]
    assert (
        isinstance(found[1], Failure) and "was killed by SIGKILL and gave no answer; it said: I am" in found[1].reason
    )
    assert isinstance(found[3], Failure) and "ended with exit code 5 and gave no answer" in found[3].reason
    assert len({float(one.outputs[0, 0, 0, 0]) for one in found if isinstance(one, Sample)}) == 3


def test_a_process_may_end_after_any_answer(tmp_path: Path) -> None:
    text = """
        import os
        from headrace_client import finalize, init, send
        import numpy as np
        for _ in range(2):
            run = init()
            if run is None:
                break
            send(run, "u", np.full(12, os.getpid()))
            finalize(run)
    """
    found = results(python(tmp_path, text, protocol="pipe"), range(5))
    assert all(isinstance(one, Sample) for one in found), found
    assert len({float(one.outputs[0, 0, 0, 0]) for one in found if isinstance(one, Sample)}) == 3
    words = reason(shell("exit 0", protocol="pipe"))
    assert "sh ended with exit code 0 and gave no answer" in words


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("read line; sleep 60", "gave no answer within 0.5 s and was stopped"),
        ("exec >&-; read line; sleep 60", "closed its output, did not end within 0.5 s and was stopped"),
        ("read line; echo '{\"index\": 7}'; read line", "answered for sample 7, was asked for 0"),
        ("read line; echo '{\"index\": 0}'; read line", "the answer does not say what was sent, expected u"),
        ("read line; echo '{\"index\": 0'; sleep 60", "gave no answer within 0.5 s"),
        ("read line; cat /dev/zero", "without the end of a line"),
    ],
)
def test_faults_of_a_process_that_is_kept(script: str, words: str) -> None:
    seconds = 20.0 if "zero" in script else 0.5
    assert words in reason(shell(script, protocol="pipe", timeout_seconds=seconds))


def test_an_error_is_told_in_the_words_of_its_own_sample(tmp_path: Path) -> None:
    text = """
        import sys
        from headrace_client import init, fail
        while run := init():
            print(f"about {run.index}", file=sys.stderr, flush=True)
            if run.index == 1:
                sys.exit(1)
            fail(run, "no")
    """
    _, second = results(python(tmp_path, text, protocol="pipe"), range(2))
    assert isinstance(second, Failure) and second.reason.endswith("; it said: about 1")


# Nothing survives.

FAMILY = """
    (trap '' TERM; while :; do sleep 1; done) &
    setsid sleep 100 &
    (setsid sh -c 'sleep 100 &')
    : > "$1"
    sleep "$2"
"""
"""A program with a child that ignores SIGTERM, one in a session of its own, and an orphan in another session."""


def family(tmp_path: Path, seconds: float, **values: Any) -> External:
    environment = {"HEADRACE_TEST": str(tmp_path)}
    command = ["/bin/sh", "-c", FAMILY, "sh", str(tmp_path / "ready"), str(seconds)]
    return problem(command, environment=environment, **values)


def sleepers(tmp_path: Path) -> list[psutil.Process]:
    """Processes whose environment says that they belong to this test."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HEADRACE_TEST") == str(tmp_path) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere only the process group is known")
@pytest.mark.parametrize("protocol", ["files", "pipe"])
def test_a_time_out_stops_all_descendants(tmp_path: Path, protocol: str) -> None:
    found = reason(family(tmp_path, 100, protocol=protocol, timeout_seconds=3.0))
    assert "was stopped" in found
    assert (tmp_path / "ready").is_file(), "the family was not complete in time"
    assert not sleepers(tmp_path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere only the process group is known")
def test_what_a_program_leaves_running_is_stopped(tmp_path: Path) -> None:
    assert "without finalize" in reason(family(tmp_path, 0))
    assert (tmp_path / "ready").is_file()
    assert not sleepers(tmp_path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere only the process group is known")
@pytest.mark.parametrize("protocol", ["files", "pipe"])
def test_a_program_dies_with_who_started_it(tmp_path: Path, scratch: Path, protocol: str) -> None:
    spec = family(tmp_path, 100, protocol=protocol)
    source = ExternalSource(problem=spec.model_copy(update={"scratch": str(scratch)}))
    (tmp_path / "source.pickle").write_bytes(pickle.dumps(source))
    script = (
        "import pickle, sys; source = pickle.load(open(sys.argv[1], 'rb')); print('at work', flush=True);"
        "list(source.samples([0]))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "source.pickle")]
    solver = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "ready").is_file():
            assert solver.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        assert len(sleepers(tmp_path)) >= 4, "the program and three more"
    finally:
        solver.kill()
        solver.wait()
    deadline = time.monotonic() + 30
    while (sleepers(tmp_path) or list(scratch.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not sleepers(tmp_path)
    assert not list(scratch.iterdir()), "the guard removes the scratch folder"


def test_the_loss_of_a_guard_is_told(tmp_path: Path) -> None:
    text = """
        import os, signal
        os.kill(os.getppid(), signal.SIGKILL)
    """
    assert "was lost: its guard was killed" in reason(python(tmp_path, text))


# Recipes.


def recipe(**values: Any) -> dict[str, Any]:
    settings = {
        "kind": "external",
        "command": ["sh", "-c", "exit 0"],
        "parameters": {"strength": {"low": 1, "high": 2}},
        "outputs": {"u": {}},
        "grid": {"shape": [8]},
    }
    return {"data": {"problem": {**settings, **values}, "samples": 4}}


def test_a_recipe_becomes_a_source_that_travels() -> None:
    config = validate(recipe(), "generate")
    source = config.source("train")
    assert isinstance(source, ExternalSource)
    assert source.planned_order(100) is None
    again = validate(json.loads(config.model_dump_json()), "generate")
    assert again == config
    schema = source.schema()
    assert [field.name for field in schema.inputs] == ["strength"] and schema.num_parameters == 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"command": ["./nowhere"]}, 'The program "{cwd}/nowhere" is not there.'),
        ({"command": ["no-such-program-here"]}, 'is not there, nor on the PATH; write "./NAME" for one in the current'),
        ({"command": ["sh", "./missing.sh"]}, 'The file "{cwd}/missing.sh" of the command is not there.'),
        ({"command": ["./plain.txt"]}, "may not be executed (chmod +x)"),
        ({"launcher": ["no-such-launcher"]}, 'The program "no-such-launcher" is not there'),
        ({"scratch": "./nowhere"}, 'The folder for scratch, "{cwd}/nowhere", is not there.'),
    ],
)
def test_a_missing_program_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.txt").touch()
    with pytest.raises(InputError) as caught:
        validate(recipe(**values), "generate")
    (fault,) = caught.value.faults
    assert fault.where == "data.problem" and words.replace("{cwd}", str(tmp_path)) in str(fault)
    # Whoever trains on the samples needs no program.
    External.model_validate(recipe(**values)["data"]["problem"]).schema()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"command": []}, "at least 1 item"),
        ({"command": "sh -c x"}, "valid tuple"),
        ({"command": ["sh", "{strenght}"]}, 'got {strenght}. Did you mean "strength"?'),
        ({"command": ["sh", "{strength.real}"]}, "got {strength.real}"),
        ({"command": ["sh", "{strength:.3f}"]}, "got {strength:.3f}"),
        ({"command": ["sh", "{"]}, "matching braces"),
        ({"command": ["{level}"]}, "a program without placeholders"),
        ({"command": ["sh", "{index}"], "protocol": "pipe"}, "no {index} in the command of a pipe"),
        ({"outputs": {}}, "at least 1 item"),
        ({"outputs": {"u": {"file": "/etc/passwd.txt"}}}, "a file inside the scratch folder"),
        ({"outputs": {"u": {"file": "../u.npy"}}}, "a file inside the scratch folder"),
        ({"outputs": {"u": {"file": "a/../../u.npy"}}}, "a file inside the scratch folder"),
        ({"outputs": {"u": {"file": "u.pkl"}}}, "a file that ends in .npy, .npz"),
        ({"outputs": {"u": {"file": "u.npz"}}}, 'for "u.npz" a dataset: it holds several arrays'),
        ({"outputs": {"u": {"file": "u.npy", "dataset": "x"}}}, "no dataset: it holds one array"),
        ({"outputs": {"u": {"dataset": "x"}}}, "a file for the dataset"),
        ({"outputs": {"u v": {}}}, '"u v" is none'),
        ({"inputs": {"u": {}}}, "u stands among both"),
        ({"inputs": {"f": {"parameter": "strenght"}}}, 'Did you mean "strength"?'),
        ({"parameters": {}}, "at least one parameter or input"),
        ({"parameters": {"seed": {"low": 0, "high": 1}}}, 'a parameter not to be called "seed"'),
        ({"parameters": {"a": {"low": 2, "high": 1}}}, "low 2 not above high 1"),
        ({"parameters": {"a": {"low": 0, "high": 1, "scale": "log"}}}, "a positive low for scale log"),
        ({"grid": {"shape": [8], "extent": [1, 1]}}, "as many entries in extent as in shape, 1, got 2"),
        ({"times": [1.0, 1.0]}, "times that increase"),
        ({"environment": {"A=B": "x"}}, "a variable's name"),
        ({"timeout_seconds": 0}, "greater than 0"),
    ],
)
def test_wrong_recipes_are_told(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        validate(recipe(**values), "generate")
    assert words in str(caught.value)
    with pytest.raises(ValidationError):
        External.model_validate(recipe(**values)["data"]["problem"])


def test_what_does_not_apply_to_a_program_is_a_fault() -> None:
    values = recipe(timeout_seconds=4000)
    values["solver"] = {"method": {"kind": "direct"}, "rtol": 1e-6, "order": "greedy", "sequence_length": 3}
    with pytest.raises(InputError) as caught:
        validate(values, "generate")
    assert [fault.where for fault in caught.value.faults] == [
        "solver.method", "solver.rtol", "solver.order", "data.problem.timeout_seconds",
    ]  # fmt: skip
    assert "an external program solves in its own way" in str(caught.value)


def test_levels_change_parameters_and_are_checked() -> None:
    values = recipe()
    values["data"] |= {"mix": {"hard": 1}, "levels": {"hard": {"parameters": {"strength": {"high": 9}}}}}
    source = validate(values, "generate").source("train")
    assert isinstance(source, ExternalSource)
    assert source.problem_at("hard").parameters["strength"].high == 9
    assert source.problem_at("hard").parameters["strength"].low == 1
    values["data"]["levels"] = {"hard": {"command": ["./nowhere"]}}
    with pytest.raises(InputError, match="data.levels.hard is changed; .* is not there"):
        validate(values, "generate")
    values["data"]["levels"] = {"hard": {"grid": {"shape": [9]}}}
    with pytest.raises(InputError, match="a level that keeps the grid"):
        validate(values, "generate")
    values["data"]["levels"] = {"hard": {"parameters": {"strength": {"hihg": 9}}}}
    with pytest.raises(InputError, match='Did you mean "high"'):
        validate(values, "generate")


def test_the_client_stands_alone() -> None:
    """It may be copied: it imports nothing of Headrace, and says what is missing when it is run without."""
    script = "import headrace_client, sys; assert 'headrace' not in sys.modules; headrace_client.init()"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**environment, "PYTHONPATH": str(CLIENT_FOLDER)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "HEADRACE_FOLDER is not set" in done.stderr
