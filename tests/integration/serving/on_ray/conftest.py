"""A real Ray Serve on this machine, with the small untrained pipeline in a registry of its own.

A first service is started, stopped in the midst of its jobs, and followed by a second one on a cluster. The second
one is there for all tests, which take it as it is: each is somebody new, or names the jobs that it waits for.
"""

import asyncio
import gzip
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch
import yaml

from medgen3d.artifacts.bundle import Bundle, read_bundle, write_bundle
from medgen3d.artifacts.bundle_weights import WEIGHTS, read_weights
from medgen3d.config.experiment import CHAIN, ExperimentConfig
from medgen3d.config.load import load_config
from medgen3d.registry.bundles import register_bundle
from medgen3d.registry.pipeline import CHAMPION, create_pipeline
from medgen3d.registry.tracking import Tracking, start_run
from medgen3d.registry.versions import fetch, find_version, set_alias
from medgen3d.serving.security.tokens import create_token
from medgen3d.serving.service import TOKENS

ENDED = ("succeeded", "failed", "cancelled")
COUNT = 3
"""Pairs of a job."""
PROCESSES = {
    **{stage: f"ray::ServeReplica:medgen3d:{stage}" for stage in CHAIN},
    "ingress": "ray::ServeReplica:medgen3d:ingress",
    "controller": "ray::ServeController",
    "proxy": "ray::ProxyActor",
}
"""Kind of process -> how its title begins."""


@dataclass(frozen=True)
class Registry:
    """Three versions of the pipeline `knee`: the champion, one with another refiner, and one whose file is damaged."""

    tracking: Tracking
    root: Path

    def promote(self, number: int) -> None:
        set_alias(self.tracking, find_version(self.tracking, "knee.pipeline", str(number)), CHAMPION)


@pytest.fixture(scope="package")
def registry(tiny_pipeline: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Registry:
    root = tmp_path_factory.mktemp("runs")
    storage = ExperimentConfig.model_validate({"storage": {"root": str(root)}}).storage
    found = Registry(Tracking.of(storage), root)
    for stage in CHAIN:
        _register(found.tracking, root / "bundle", read_bundle(tiny_pipeline[stage]), shift=0.0)
    create_pipeline(found.tracking, "knee")
    for shift in (0.05, 0.1):
        _register(found.tracking, root / "bundle", read_bundle(tiny_pipeline["refiner"]), shift)
        create_pipeline(found.tracking, "knee")
    (fetch(found.tracking, find_version(found.tracking, "knee.refiner", "3")) / WEIGHTS).write_bytes(b"damaged")
    found.promote(1)
    return found


def _register(tracking: Tracking, folder: Path, bundle: Bundle, shift: float) -> None:
    run_id = start_run(tracking, "knee", bundle.info.stage, tags={}, params={})
    provenance = bundle.provenance.model_copy(update={"parent_run": run_id})
    weights = {
        name: tensor + shift if tensor.dtype == torch.float32 else tensor
        for name, tensor in read_weights(bundle.root).items()
    }
    write_bundle(folder, bundle.info, weights, provenance, preview_png=None)
    register_bundle(tracking, folder)


@dataclass(frozen=True)
class Service:
    """A running service and a client of it that waits while processes are replaced."""

    url: str
    token: str
    folder: Path

    def results(self, job_id: str) -> list[str]:
        """The archives in a job's folder: one for each execution that came to its end and counts."""
        return sorted(path.name for path in (self.folder / "jobs" / job_id).glob("result-*.zip"))

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The first answer that is not the sign of a process that has just died; at most five minutes later."""
        headers = {"Authorization": f"Bearer {self.token}"} | options.pop("headers", {})
        for _ in range(1200):
            try:
                answer = httpx.request(method, self.url + path, headers=headers, timeout=30, **options)
            except httpx.TransportError:
                answer = None
            # A proxy that has just been started knows no address, and says so in words of its own.
            is_ours = answer is not None and answer.status_code not in (500, 502, 503, 504)
            if answer is not None and is_ours and "Ping http://" not in answer.text:
                return answer
            time.sleep(0.25)
        raise AssertionError(f"{method} {path}: no answer for five minutes")

    def submit(self, seed: int, key: str | None = None, **request: Any) -> str:
        """A job's id; with a key the same job however often it is tried."""
        options: dict[str, Any] = {"headers": {"Idempotency-Key": key}} if key else {}
        answer = self.ask("POST", "/v1/jobs", json={"pipeline": "knee", "seed": seed} | request, **options)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def status(self, job_id: str) -> dict[str, Any]:
        return self.ask("GET", f"/v1/jobs/{job_id}").json()

    def wait(self, job_id: str, states: tuple[str, ...] = ENDED, within_s: float = 600) -> dict[str, Any]:
        end = time.monotonic() + within_s
        while (job := self.status(job_id))["state"] not in states:
            assert time.monotonic() < end, job
            time.sleep(0.1)
        return job

    def all_at_once(self, number: int) -> list[httpx.Response]:
        """The answers to so many clients who ask for a pair at the same time; half of them are of one owner."""
        tokens = [create_token(self.folder / TOKENS, f"owner-{each}")[0] for each in range(5)]
        named = [tokens[0], tokens[1], tokens[0], tokens[2], tokens[0], tokens[3], tokens[0], tokens[4]]

        async def ask_all() -> list[httpx.Response]:
            limits = httpx.Limits(max_connections=number)
            async with httpx.AsyncClient(base_url=self.url, timeout=120, limits=limits) as client:
                asked = (
                    client.post(
                        "/v1/jobs",
                        json={"pipeline": "knee", "seed": each},
                        headers={"Authorization": f"Bearer {named[each % len(named)]}"},
                    )
                    for each in range(number)
                )
                return await asyncio.gather(*asked)

        return asyncio.run(ask_all())

    def volumes(self, job_id: str) -> dict[str, bytes]:
        """Name -> content of the NIfTI files of a job's result."""
        answer = self.ask("GET", f"/v1/jobs/{job_id}/result")
        assert answer.status_code == 200, answer.text
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            names = [name for name in archive.namelist() if name.endswith(".nii.gz")]
            return {name: gzip.decompress(archive.read(name)) for name in names}


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster of its own processes, which end with the process that started it.

    dashboard: Its address.
    metrics: Address of what Prometheus reads.
    folder: Its RAY_TMPDIR.
    """

    dashboard: str
    metrics: str
    folder: str

    def processes(self, kind: str) -> list[psutil.Process]:
        """Its living processes of a kind."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # it has ended, or is somebody else's
                is_ours = process.environ().get("RAY_TMPDIR") == self.folder
                if is_ours and " ".join(process.cmdline()).startswith(PROCESSES[kind]):
                    found.append(process)
        return found

    def pids(self, kind: str) -> list[int]:
        """The numbers of these processes."""
        return [process.pid for process in self.processes(kind)]

    def memory_mib(self, kind: str) -> float:
        """Memory of the processes of a kind."""
        return sum(process.memory_info().rss for process in self.processes(kind)) / 2**20

    def cpu_seconds(self, *kinds: str) -> float:
        """Time that the processes of these kinds have spent on CPUs so far."""
        spent = [process.cpu_times() for kind in kinds for process in self.processes(kind)]
        return sum(times.user + times.system for times in spent)

    def kill(self, *kinds: str) -> None:
        """End all processes of these kinds at once, as the failure of a machine would."""
        for kind in kinds:
            victims = self.pids(kind)
            assert victims, f"no {kind} is running"
            for pid in victims:
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="package")
def start_cluster() -> Iterator[Callable[[], Cluster]]:
    """start_cluster(): another cluster with eight logical CPUs and a dashboard."""
    running: list[tuple[subprocess.Popen[str], str]] = []

    def start() -> Cluster:
        folder = tempfile.mkdtemp(prefix="mg3d-", dir="/tmp")  # short, as in tests/conftest.py
        script = (
            "import ray, sys; port = int(sys.argv[1]);"
            "made = ray.init(address='local', num_cpus=8, include_dashboard=True, dashboard_port=port);"
            "print(made.address_info['webui_url'], ray.nodes()[0]['MetricsExportPort'], flush=True); sys.stdin.read()"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(free_port())],
            env=os.environ | {"RAY_TMPDIR": folder},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        running.append((process, folder))
        said = process.stdout.readline().split()
        assert said, "the cluster did not start"
        dashboard, port = said
        return Cluster(f"http://{dashboard}", f"http://127.0.0.1:{port}/metrics", folder)

    yield start
    for process, folder in running:
        process.communicate("")
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture(scope="package")
def write_config(registry: Registry) -> Callable[..., Path]:
    """write_config(folder, name, **settings of serving): a configuration of the service in this folder, as YAML."""

    def write(folder: Path, name: str, **settings: Any) -> Path:
        engine = {"poll_s": 0.5, "mask_generator": {"max_replicas": 1}, "refiner": {"max_replicas": 1}}
        serving = {
            "pipelines": ["knee@champion"],
            "port": free_port(),
            "folder": str(folder / "serving"),
            "lease_s": 3.0,
            "max_running": 16,
            "requests_per_minute": 6000,
            "request_burst": 6000,
            "engine": engine,
        }
        tree = {"serving": serving | settings, "storage": {"root": str(registry.root)}}
        (folder / name).write_text(yaml.safe_dump(tree))
        return folder / name

    return write


@pytest.fixture(scope="package")
def client_of() -> Callable[[Path], Service]:
    """client_of(configuration): a client, with a token of its own, of the service that it describes."""

    def make(config: Path) -> Service:
        experiment = load_config(config)
        token, _ = create_token(experiment.serving_dir / TOKENS, "anna", ("synthesize", "admin"))
        url = f"http://127.0.0.1:{experiment.serving.port}"
        return Service(url, token, experiment.serving_dir)

    return make


@pytest.fixture(scope="package")
def start_here() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """start_here(configuration): a running `medgen3d serve`, once it says that it serves."""
    running: list[subprocess.Popen[str]] = []

    def start(config: Path) -> subprocess.Popen[str]:
        errors = config.with_suffix(".err")
        with errors.open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "medgen3d", "serve", "--config", str(config)],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        running.append(process)
        said = process.stdout.readline()
        assert said.startswith("Serving at http://127.0.0.1:"), said + errors.read_text()
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
            process.communicate()


def medgen3d(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "medgen3d", *map(str, words)], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="package")
def deploy() -> Callable[[Path, Cluster], subprocess.CompletedProcess[str]]:
    """deploy(configuration, cluster): what `medgen3d serve deploy` says of its Serve config file."""

    def run(config: Path, cluster: Cluster) -> subprocess.CompletedProcess[str]:
        made = medgen3d("serve", "config", "--config", config)
        assert made.returncode == 0, made.stderr
        serve_file = config.with_name(f"deployed-{config.name}")
        serve_file.write_text(made.stdout)
        return medgen3d("serve", "deploy", "--config", serve_file, "--address", cluster.dashboard)

    return run


@dataclass(frozen=True)
class Followed:
    """The second service.

    client: Of it.
    cluster: On which it runs.
    max_queued: Jobs that it lets wait.
    count: Pairs of each of these jobs.
    expected: Volumes of undisturbed jobs, by seed.
    left: Jobs that the first service left, by seed.
    said: What the first service said when it was stopped.
    """

    client: Service
    cluster: Cluster
    max_queued: int
    count: int
    expected: dict[int, dict[str, bytes]]
    left: dict[int, str]
    said: str


@pytest.fixture(scope="package")
def service(tmp_path_factory, write_config, start_here, client_of, start_cluster, deploy) -> Followed:
    folder = tmp_path_factory.mktemp("service")
    first = write_config(folder, "first.yaml")
    process, client = start_here(first), client_of(first)
    undisturbed = {seed: client.submit(seed=seed, count=COUNT) for seed in range(2)}
    expected = {seed: client.wait(job) and client.volumes(job) for seed, job in undisturbed.items()}
    left = {seed: client.submit(seed=seed, count=COUNT) for seed in expected}
    endless = client.submit(seed=1, count=300)
    client.wait(endless, states=("running",))
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0

    limits = {"max_queued": 40, "jobs_per_owner": 20}
    second, cluster = write_config(folder, "second.yaml", **limits), start_cluster()
    deployed = deploy(second, cluster)
    assert deployed.returncode == 0, deployed.stderr
    later = client_of(second)
    assert later.ask("DELETE", f"/v1/jobs/{endless}").json()["state"] == "cancelled"
    return Followed(later, cluster, limits["max_queued"], COUNT, expected, left, said)
