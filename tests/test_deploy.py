"""The deployment files: no container engine is needed to see that what they say would be understood."""

import functools
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import jsonschema
import jsonschema.protocols
import pytest
import requests
import yaml

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
SCHEMAS = ROOT.parent / "shared" / "data" / "kuberay"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
SECRETS = {"RAY_AUTH_TOKEN": "token-of-the-test", "POSTGRES_PASSWORD": "password-of-the-test"}


def programs() -> Mapping[str, click.Command]:
    from mlflow.cli import cli as mlflow
    from ray.scripts.scripts import cli as ray

    from headrace.pipelines.cli import main as headrace

    return {"ray": ray, "mlflow": mlflow, "headrace": headrace}


def accept(words: list[str]) -> dict[str, Any]:
    """Let a program parse its command line without running it; its parameters, or a `UsageError`."""
    name, *rest = words
    command = programs()[name]
    while isinstance(command, click.Group):
        name, *rest = rest
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"{' '.join(words)}: there is no command {name}"
        command = found
    return command.make_context(name, rest).params


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Compose's interpolation, as far as the file uses it: ${A}, ${A:-default}, ${A:?message}."""

    def value(match: re.Match[str]) -> str:
        name, operator, argument = match["name"], match["operator"], match["argument"]
        if variables.get(name):
            return variables[name]
        assert operator == ":-", f"{name} must be set: {argument}"
        return str(argument)

    return re.sub(r"\$\{(?P<name>\w+)(?:(?P<operator>:[-?])(?P<argument>[^}]*))?\}", value, text)


def compose(**variables: str) -> dict[str, Any]:
    return dict(yaml.safe_load(interpolate((DEPLOY / "compose.yaml").read_text(), SECRETS | variables)))


# The command lines


def test_an_option_that_does_not_exist_is_refused() -> None:
    with pytest.raises(click.UsageError, match="--no-such-option"):
        accept(["ray", "start", "--no-such-option"])


def test_compose_commands_are_understood() -> None:
    services = compose()["services"]
    told = {name: accept(service["command"]) for name, service in services.items() if "command" in service}
    assert told["head"]["head"] is True
    assert told["head"]["block"] is told["worker"]["block"] is True
    assert told["worker"]["address"] == f"head:{told['head']['port']}"
    assert told["cli"]["address"] == f"http://head:{told['head']['dashboard_port']}"
    assert told["mlflow"]["port"] == 5000
    health = services["head"]["healthcheck"]["test"]
    assert health[0] == "CMD"
    accept(health[1:])


def test_readme_commands_are_understood() -> None:
    text = (DEPLOY / "README.md").read_text()
    blocks = "\n".join(re.findall(r"```shell\n(.*?)```", text, re.DOTALL))
    found = 0
    for line in blocks.splitlines():
        words = [word for word in shlex.split(line, comments=True) if not re.fullmatch(r"[A-Z_]+=\S*", word)]
        if "headrace" in words:
            words = words[words.index("headrace") :]
        if words and words[0] in ("ray", "headrace"):
            accept(words)
            found += 1
    assert found >= 5
    for name in re.findall(r"deploy/[\w./-]+\.\w+", text):
        assert (ROOT / name).is_file() or name == "deploy/.env", name


def test_base_runs_an_mlflow_server() -> None:
    (deployment,) = (document for document in documents("kuberay/base.yaml") if document["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    told = accept(container["args"])
    assert told["port"] == container["ports"][0]["containerPort"]
    (service,) = (document for document in documents("kuberay/base.yaml") if document["kind"] == "Service")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert f"{service['metadata']['name']}:{told['port']}" in told["allowed_hosts"]


def test_job_entrypoint_survives_the_shells_on_its_way(tmp_path: Path) -> None:
    """KubeRay gives the text to the submitter's shell, `ray job submit` joins the words, the head's shell runs them."""
    (job,) = documents("kuberay/rayjob.yaml")
    as_words = ["bash", "-c", f"printf '%s\\0' {job['spec']['entrypoint']}"]
    bare = {"PATH": os.environ["PATH"]}
    words = subprocess.run(as_words, env=bare, capture_output=True, text=True, check=True).stdout.split("\0")[:-1]
    headrace = tmp_path / "headrace"
    headrace.write_text("#!/bin/sh\nprintf '%s\\n' headrace \"$@\"\n")
    headrace.chmod(0o755)
    on_head = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RAY_CLUSTER_NAME": "headrace-x7k2p"}
    joined = subprocess.list2cmdline(words)
    done = subprocess.run(joined, shell=True, env=on_head, capture_output=True, text=True, check=True)
    told = accept(done.stdout.split())
    assert told["recipe"] == "darcy_fno"
    assert str(told["out"]) == "/data/runs/headrace-x7k2p"


# Compose


def test_compose_refuses_to_start_without_secrets() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    for name in SECRETS:
        with pytest.raises(AssertionError, match=f"{name} must be set: .*deploy/README.md"):
            interpolate(text, {**SECRETS, name: ""})
    example = (DEPLOY / ".env.example").read_text()
    named = set(re.findall(r"\$\{(\w+)", text))
    assert named == set(re.findall(r"^#? ?([A-Z_]+)=", example, re.MULTILINE))


def test_compose_publishes_on_the_loopback_only() -> None:
    def published(**variables: str) -> list[str]:
        services = compose(**variables)["services"].values()
        return [port for service in services for port in service.get("ports", [])]

    assert sorted(published()) == ["127.0.0.1:5000:5000", "127.0.0.1:8265:8265"]
    assert all(port.startswith("0.0.0.0:") for port in published(HEADRACE_BIND="0.0.0.0"))


def test_compose_holds_together() -> None:
    config = compose(HEADRACE_WORKERS="3")
    services = config["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= services.keys(), name
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in config["volumes"], name
        for on, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"} and "healthcheck" in services[on]
    assert services["worker"]["deploy"]["replicas"] == 3
    ray = [services[name] for name in ("head", "worker", "cli")]
    for service in ray:
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["environment"]["RAY_AUTH_TOKEN"] == SECRETS["RAY_AUTH_TOKEN"]
        assert service["environment"]["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
        assert service["volumes"] == ["data:/data"], "runs lie on storage that every node shares"
        assert service["shm_size"] == "4g"
    written = json.dumps([service.get("command") for service in services.values()])
    assert not any(secret in written for secret in SECRETS.values()), "a command line is readable by everyone"


def test_compose_database_address_is_one_that_mlflow_understands() -> None:
    import sqlalchemy
    from mlflow.utils.uri import extract_db_type_from_uri

    services = compose()["services"]
    uri = services["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"]
    url = sqlalchemy.make_url(uri)
    database = services["postgres"]["environment"]
    assert extract_db_type_from_uri(uri) == "postgresql"
    assert (url.host, url.port, url.drivername) == ("postgres", 5432, "postgresql+psycopg")
    assert url.database == database["POSTGRES_DB"]
    assert (url.username, url.password) == (database["POSTGRES_USER"], database["POSTGRES_PASSWORD"])


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The MLflow server of compose.yaml, but for its database, folder, port and number of workers; its port."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    replaced = {
        "--host": "127.0.0.1",
        "--port": str(port),
        "--workers": "1",
        "--artifacts-destination": str(folder / "artifacts"),
    }
    words = []
    for word in compose()["services"]["mlflow"]["command"]:
        option, equals, value = word.partition("=")
        words.append(f"{option}={replaced.get(option, value)}" if equals else word)
    own = {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/mlflow.db"}
    environment = {**os.environ, **compose()["services"]["mlflow"]["environment"], **own}
    command = [str(Path(sys.executable).parent / words[0]), *words[1:]]
    with (folder / "log").open("w") as log:
        # A session of its own: the server starts workers, which end with it.
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 150
        while True:
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            try:
                if requests.get(f"http://127.0.0.1:{port}/health", timeout=5).ok:
                    break
            except requests.RequestException:
                time.sleep(0.5)
        yield port
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_compose_mlflow_answers_the_cluster_and_no_stranger(mlflow_server: int) -> None:
    def status(host: str) -> int:
        url = f"http://127.0.0.1:{mlflow_server}/api/2.0/mlflow/experiments/search"
        return requests.post(url, json={"max_results": 1}, headers={"Host": host}, timeout=30).status_code

    # What Ray's nodes send (MLFLOW_TRACKING_URI of the file), what a browser here sends, and a page that was rebound.
    assert status("mlflow:5000") == 200
    assert status("127.0.0.1:5000") == 200
    assert status("attacker.example:5000") == 403


# Kubernetes


def strict(schema: Any) -> Any:
    """The schema with unknown fields forbidden: a Kubernetes server drops them in silence, typing errors too."""
    if isinstance(schema, list):
        return [strict(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    open_ended = made.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in made
    if made.get("type") == "object" and isinstance(made.get("properties"), dict) and not open_ended:
        made["additionalProperties"] = False
    return made


@functools.cache
def definition(kind: str) -> jsonschema.protocols.Validator:
    file = SCHEMAS / f"ray.io_{kind}.yaml"
    if not file.is_file():
        pytest.skip(f"{file.name}, KubeRay's definition, is not here")
    definition = yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (version,) = (version for version in definition["spec"]["versions"] if version["name"] == "v1")
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(schema)


def test_rayjob_is_one() -> None:
    (job,) = documents("kuberay/rayjob.yaml")
    definition("rayjobs").validate(job)


def test_rayjob_with_a_typing_error_is_none() -> None:
    (job,) = documents("kuberay/rayjob.yaml")
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(jsonschema.ValidationError, match="volumeMount"):
        definition("rayjobs").validate(job)


def test_its_cluster_is_a_raycluster() -> None:
    (job,) = documents("kuberay/rayjob.yaml")
    spec = job["spec"]["rayClusterSpec"]
    cluster = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": "headrace"}, "spec": spec}
    definition("rayclusters").validate(cluster)


def test_rayjob_holds_together() -> None:
    (job,) = documents("kuberay/rayjob.yaml")
    cluster = job["spec"]["rayClusterSpec"]
    base = documents("kuberay/base.yaml")
    claims = {document["metadata"]["name"] for document in base if document["kind"] == "PersistentVolumeClaim"}
    services = {document["metadata"]["name"] for document in base if document["kind"] == "Service"}
    assert cluster["authOptions"] == {"mode": "token"}
    pins = (ROOT / "constraints.txt").read_text()
    assert f"\nray=={cluster['rayVersion']}\n" in pins, "KubeRay must know the version that the image has"
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for pod in (group["template"]["spec"] for group in pods):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert {volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"]} <= claims
        (container,) = pod["containers"]
        assert container["image"] == f"headrace:{VERSION}"
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/data"}
        environment = {entry["name"]: entry["value"] for entry in container["env"]}
        assert environment["MLFLOW_TRACKING_URI"].removeprefix("http://").partition(":")[0] in services
        assert container["resources"]["limits"] == container["resources"]["requests"]
    (gpu,) = (group for group in cluster["workerGroupSpecs"] if group["groupName"] == "gpu")
    assert gpu["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    # KubeRay turns these into options of `ray start`.
    for group in pods:
        accept(["ray", "start", *(f"--{key}={value}" for key, value in group["rayStartParams"].items())])


# The image


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.partition(" ") for line in text.splitlines() if line.strip()]
    return [(word, rest.strip()) for word, _, rest in lines]


def test_image_is_built_from_what_is_there() -> None:
    sources = [source for word, rest in instructions() if word == "COPY" for source in rest.split()[:-1]]
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored, f"{source} is copied, but does not reach the builder"
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"].values()
    assert {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", *packages} == set(sources)


def test_image_does_not_run_as_root_and_names_what_exists() -> None:
    told = instructions()
    assert [rest for word, rest in told if word == "USER"] == ["headrace"]
    assert told.index(("USER", "headrace")) > max(i for i, (word, _) in enumerate(told) if word == "RUN")
    assert ("FROM", f"python:{(ROOT / '.python-version').read_text().strip()}-slim") in told
    (pin,) = re.findall(r"^UV_PIN := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert any(pin in rest for word, rest in told if word == "RUN"), "the image and the Makefile install with one uv"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (extra,) = re.findall(r"--extra (\w+)", (DEPLOY / "Dockerfile").read_text())
    assert extra in extras
    (command,) = (json.loads(rest) for word, rest in told if word == "CMD")
    assert command[0] == "headrace"


def test_every_file_names_the_same_image() -> None:
    for file in DEPLOY.rglob("*"):
        if file.is_file():
            assert set(re.findall(r"\bheadrace:(\d[\w.]*)", file.read_text())) <= {VERSION}, file


# Slurm

# Each call is written as one line at once: programs of several steps write at the same time.
SRUN = """#!/usr/bin/env bash
while [[ "$1" == --* ]]; do shift; done
exec "$@"
"""
RAY = """#!/usr/bin/env bash
call=$(printf '%s\\t' "$RAY_AUTH_TOKEN" "ray" "$@") && echo "$call" >> "$CALLS"
case "$1 $2" in
    "start --head") [ -n "${HEAD_FAILS:-}" ] && exit 1; echo $$ >> "$STARTED"; exec sleep 120 ;;
    "start --address"*) echo $$ >> "$STARTED"; exec sleep 120 ;;
    "list nodes") echo "[$(sed 's/.*/{"node_id": "&", "state": "ALIVE"},/' "$STARTED" | tr -d '\n')]" ;;
esac
"""
HEADRACE = """#!/usr/bin/env bash
call=$(printf '%s\\t' "$RAY_AUTH_TOKEN" "headrace" "$@") && echo "$call" >> "$CALLS"
[ -n "${RUN_HANGS:-}" ] && exec sleep 120
exit "${RUN_STATUS:-0}"
"""


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment of a Slurm job of two nodes, whose programs write down how they were called."""
    stubs = {
        "srun": SRUN,
        "scontrol": "#!/bin/sh\nprintf 'node7\\nnode8\\n'\n",
        "hostname": "#!/bin/sh\necho 10.1.2.7 fe80::7\n",
        "ray": RAY,
        "headrace": HEADRACE,
    }
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in stubs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return {
        "PATH": f"{folder}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "CALLS": str(tmp_path / "calls"),
        "STARTED": str(tmp_path / "started"),
        "HEADRACE_POLL": "0.1",
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_CPUS_PER_TASK": "16",
        "SLURM_SUBMIT_DIR": "/home/u",
    }


def sbatch(environment: Mapping[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = ["bash", str(DEPLOY / "slurm" / "headrace.sbatch"), *arguments]
    return subprocess.Popen(command, env=dict(environment), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def calls(environment: Mapping[str, str]) -> list[list[str]]:
    return [line.rstrip("\t").split("\t") for line in Path(environment["CALLS"]).read_text().splitlines()]


def assert_gone(environment: Mapping[str, str]) -> None:
    for pid in Path(environment["STARTED"]).read_text().split():
        assert not Path(f"/proc/{pid}").exists(), "a step of Ray outlives the job"


def test_sbatch_starts_head_and_workers_and_runs_the_recipe(slurm: dict[str, str]) -> None:
    job = sbatch({**slurm, "SLURM_GPUS_ON_NODE": "4"}, "darcy_fno", "training.steps=5000")
    out, err = job.communicate(timeout=60)
    assert job.returncode == 0, err
    made = calls(slurm)
    (token,) = {call[0] for call in made}
    assert re.fullmatch(r"[0-9a-f]{64}", token)
    assert token not in out + err
    commands = [call[1:] for call in made]
    told = [(command[:2], accept(command)) for command in commands]
    head, worker = (parameters for words, parameters in told if words == ["ray", "start"])
    assert (head["head"], head["node_ip_address"], head["port"]) == (True, "10.1.2.7", 6379)
    assert head["dashboard_host"] == "127.0.0.1"
    assert worker["address"] == "10.1.2.7:6379"
    for node in (head, worker):
        assert (node["num_cpus"], node["num_gpus"], node["block"]) == (16, 4, True)
    (run,) = (parameters for words, parameters in told if words == ["headrace", "run"])
    assert run["recipe"] == "darcy_fno"
    assert run["overrides"] == ("resources.address=10.1.2.7:6379", "training.steps=5000")
    assert str(run["out"]) == "/home/u/runs/slurm-4711"
    assert_gone(slurm)


def test_sbatch_returns_the_status_of_the_run(slurm: dict[str, str]) -> None:
    job = sbatch({**slurm, "RUN_STATUS": "2"}, "nonsense")
    job.communicate(timeout=60)
    assert job.returncode == 2
    assert_gone(slurm)


def test_sbatch_ends_all_when_it_is_cancelled(slurm: dict[str, str]) -> None:
    job = sbatch({**slurm, "RUN_HANGS": "1"}, "darcy_fno")
    deadline = time.monotonic() + 30
    while "headrace" not in (Path(slurm["CALLS"]).read_text() if Path(slurm["CALLS"]).exists() else ""):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    job.terminate()
    job.communicate(timeout=30)
    assert job.returncode == 143
    assert_gone(slurm)


def test_sbatch_says_when_the_head_does_not_start(slurm: dict[str, str]) -> None:
    Path(slurm["STARTED"]).touch()
    job = sbatch({**slurm, "HEAD_FAILS": "1"}, "darcy_fno")
    _, err = job.communicate(timeout=60)
    assert job.returncode == 1
    assert "the Ray head on node7 did not come up: its reason stands above" in err


def test_sbatch_says_what_it_needs(slurm: dict[str, str]) -> None:
    job = sbatch(slurm)
    assert "usage: sbatch headrace.sbatch RECIPE" in job.communicate(timeout=30)[1]
    assert job.returncode == 2
    (Path(slurm["PATH"].partition(":")[0]) / "headrace").unlink()
    job = sbatch(slurm, "darcy_fno")
    assert "no headrace on the PATH" in job.communicate(timeout=30)[1]
    assert job.returncode == 2


@pytest.mark.parametrize("script", ["deploy/slurm/headrace.sbatch", ".ci/run"])
def test_shell_scripts_parse(script: str) -> None:
    done = subprocess.run(["bash", "-n", str(ROOT / script)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_head_waits_for_a_host_that_was_cut_off_for_half_a_minute() -> None:
    for name in ("slurm/headrace.sbatch", "README.md", "kuberay/rayjob.yaml"):
        assert "RAY_health_check_failure_threshold" in (DEPLOY / name).read_text(), name
