"""The doctor: what it finds here, and what it says where something is missing."""

import json
from collections import namedtuple
from dataclasses import asdict
from pathlib import Path

import pytest

from headrace.pipelines.doctor import doctor, probes
from headrace.pipelines.doctor.probes import ProbeResult, probe

# Whichever test comes first waits for the imports of every library, in processes of their own.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def findings() -> list[doctor.Finding]:
    return doctor.examine()


def test_examines_every_part_once(findings: list[doctor.Finding]) -> None:
    assert [finding.name for finding in findings] == [
        *("Python", "torch", "CUDA", "Lightning", "Ray", "MLflow", "storage", "Numba", "DOLFINx"),
        *("CPU", "memory", "shared memory", "disk"),
    ]


def test_finds_this_environment_fit(findings: list[doctor.Finding]) -> None:
    # The tests need all of these, so a finding of "fail" would be the doctor's own mistake.
    assert [finding for finding in findings if finding.status == "fail"] == []
    for finding in findings:
        assert finding.detail
        assert bool(finding.advice) == (finding.status != "ok"), finding


def test_findings_are_json(findings: list[doctor.Finding]) -> None:
    told = json.loads(json.dumps([asdict(finding) for finding in findings]))
    assert told[0].keys() == {"name", "status", "detail", "advice"}


def test_numba_probe_leaves_nothing_in_the_package() -> None:
    import headrace.solvers

    folder = Path(headrace.solvers.__file__).parent
    assert not list(folder.rglob("__init__.cached*.nb[ic]"))


@pytest.mark.parametrize(
    ("script", "trouble"),
    [
        ("import os; os.abort()", "the process was killed by signal 6"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("import sys; sys.exit(3)", "exit status 3"),
        ("print('hello')", 'answered "hello"'),
        ("import time; time.sleep(60)", "no answer within 2 s"),
    ],
    ids=["crash", "error", "status", "nonsense", "hang"],
)
def test_probe_survives(script: str, trouble: str) -> None:
    assert probe(script, seconds=2.0) == ProbeResult(told={}, trouble=trouble)


def test_probe_works_in_a_scratch_folder_that_goes() -> None:
    script = "import json, os, sys; print('noise'); print(json.dumps({'here': os.getcwd(), 'given': sys.argv[1]}))"
    told = probe(script).told
    assert told["here"] == told["given"]
    assert not Path(told["given"]).exists()


@pytest.mark.parametrize(("name", "module"), [("RAY", "ray"), ("MLFLOW", "mlflow"), ("NUMBA", "numba")])
def test_probe_tells_of_a_missing_library(name: str, module: str) -> None:
    hidden = f"import sys; sys.modules[{module!r}] = None\n" + getattr(probes, name)
    finding = doctor.library(module, probe(hidden))
    assert finding.status == "fail"
    assert module in finding.detail
    assert "pip install" in finding.advice


def test_uninstalled_distribution_fails() -> None:
    finding = doctor.installed("Thing", "headrace-no-such-thing")
    assert (finding.status, finding.detail) == ("fail", "headrace-no-such-thing is not installed")


def test_gpu_that_torch_cannot_use_is_a_warning(tmp_path: Path) -> None:
    driver = tmp_path / "nvidiactl"
    driver.touch()
    answer = ProbeResult(told={"version": "2.15.0", "cuda": "13.2", "devices": []})
    torch, cuda = doctor.torch_and_cuda(answer, driver)
    assert (torch.status, cuda.status) == ("ok", "warn")
    assert "driver" in cuda.advice and "13.2" in cuda.advice
    (_, without) = doctor.torch_and_cuda(answer, tmp_path / "none")
    assert without.status == "ok"
    (_, cuda) = doctor.torch_and_cuda(ProbeResult(told={**answer.told, "devices": ["H100 (80 GB)"]}), driver)
    assert (cuda.status, cuda.detail) == ("ok", "H100 (80 GB)")


def test_ray_says_where_the_token_is_and_never_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = ProbeResult(told={"version": "2.60.0"})
    file = tmp_path / "token"
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    assert "no cluster token" in doctor.ray(answer).detail
    file.write_text("secret")
    assert str(file) in doctor.ray(answer).detail
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    assert doctor.ray(answer).detail == "2.60.0, cluster token in RAY_AUTH_TOKEN"


def test_numba_without_a_cache_folder_fails() -> None:
    finding = doctor.numba(ProbeResult(told={"version": "0.68", "cache": ""}))
    assert finding.status == "fail"
    assert "NUMBA_CACHE_DIR" in finding.advice


def test_dolfinx_is_missed_but_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    finding = doctor.dolfinx(ProbeResult(told={}, trouble="ModuleNotFoundError: No module named 'dolfinx'"))
    assert (finding.status, finding.detail) == ("warn", "not installed")
    assert "dolfinx-solver-real" in finding.advice and "fenics-dolfinx" in finding.advice


def test_dolfinx_without_a_compiler_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    finding = doctor.dolfinx(ProbeResult(told={"dolfinx": "0.11", "petsc": "3.25"}))
    assert finding.status == "warn"
    assert "C compiler" in finding.detail and "gcc" in finding.advice


@pytest.mark.parametrize("group", ["/job/step", "/", "/of/the/host"])
def test_control_groups_above_count_too(tmp_path: Path, group: str) -> None:
    root, own = tmp_path / "cgroup", tmp_path / "own"
    (root / "job" / "step").mkdir(parents=True)
    (root / "cpu.max").write_text("max 100000\n")
    (root / "job" / "cpu.max").write_text("150000 100000\n")
    (root / "job" / "step" / "cpu.max").write_text("400000 100000\n")
    own.write_text(f"1:name=systemd:/x\n0::{group}\n")
    limits = doctor.cgroup_limits("cpu.max", root, own)
    if group == "/job/step":
        assert limits == ["400000 100000", "150000 100000", "max 100000"]
    else:
        assert limits == ["max 100000"]
    assert doctor.cgroup_limits("cpu.max", root, tmp_path / "none") == []


def test_one_core_of_a_control_group_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda pid: set(range(16)))
    monkeypatch.setattr(doctor, "cgroup_limits", lambda name: ["150000 100000", "max 100000"])
    finding = doctor.processors()
    assert finding.status == "warn"
    assert finding.detail == "16 cores, limited to 1.5 by the control group"


def test_memory_heeds_the_control_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "cgroup_limits", lambda name: ["2000000000", "max"])
    finding = doctor.memory()
    assert finding.status == "warn"
    assert "of 2.0 GB available (limit of the control group)" in finding.detail


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(("free", "status"), [(10e9, "ok"), (1e9, "warn"), (0.1e9, "fail")])
def test_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: float, status: str) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(100e9, 100e9 - free, free))
    finding = doctor.disk(tmp_path)
    assert finding.status == status
    assert f"{free / 1e9:.1f} GB free at {tmp_path}" == finding.detail


def test_docker_default_shared_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(64e6, 0.0, 64e6))
    finding = doctor.shared_memory(tmp_path)
    assert finding.status == "warn"
    assert "--shm-size" in finding.advice
    assert doctor.shared_memory(tmp_path / "none").status == "ok"
