"""A real Ray Serve on this machine, with the small untrained pipeline in a registry of its own."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from medgen3d.artifacts.bundle import Bundle, read_bundle, read_weights, write_bundle
from medgen3d.config.experiment import CHAIN, ExperimentConfig
from medgen3d.recipes.serve import served_here
from medgen3d.registry.bundles import register_bundle
from medgen3d.registry.pipeline import CHAMPION, create_pipeline
from medgen3d.registry.tracking import Tracking, start_run
from medgen3d.registry.versions import find_version, set_alias
from medgen3d.serving.service import TOKENS
from medgen3d.serving.tokens import create_token

ENDED = ("succeeded", "failed", "cancelled")
PROCESSES = {
    **{stage: f"ray::ServeReplica:medgen3d:{stage}" for stage in CHAIN},
    "ingress": "ray::ServeReplica:medgen3d:ingress",
    "controller": "ray::ServeController",
    "proxy": "ray::ProxyActor",
}
"""Kind of process -> how its title begins."""


@dataclass(frozen=True)
class Registry:
    """Two versions of the pipeline `knee`, whose refiners differ; the first one is the champion."""

    tracking: Tracking
    root: Path

    def promote(self, number: int) -> None:
        set_alias(self.tracking, find_version(self.tracking, "knee.pipeline", str(number)), CHAMPION)


@pytest.fixture(scope="session")
def registry(tiny_pipeline: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Registry:
    root = tmp_path_factory.mktemp("runs")
    storage = ExperimentConfig.model_validate({"storage": {"root": str(root)}}).storage
    found = Registry(Tracking.of(storage), root)
    for stage in CHAIN:
        _register(found.tracking, root / "bundle", read_bundle(tiny_pipeline[stage]), shift=0.0)
    create_pipeline(found.tracking, "knee")
    _register(found.tracking, root / "bundle", read_bundle(tiny_pipeline["refiner"]), shift=0.05)
    create_pipeline(found.tracking, "knee")
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
    headers: dict[str, str]
    folder: Path

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The first answer that is not the sign of a process that has just died; at most a minute later."""
        headers = self.headers | options.pop("headers", {})
        for _ in range(240):
            try:
                answer = httpx.request(method, self.url + path, headers=headers, timeout=30, **options)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code not in (500, 502, 503, 504):
                return answer
            time.sleep(0.25)
        raise AssertionError(f"{method} {path}: no answer for a minute")

    def submit(self, seed: int, key: str | None = None, **request: Any) -> str:
        """A job's id; with a key the same job however often it is tried."""
        options: dict[str, Any] = {"headers": {"Idempotency-Key": key}} if key else {}
        answer = self.ask("POST", "/v1/jobs", json={"pipeline": "knee", "seed": seed} | request, **options)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def status(self, job_id: str) -> dict[str, Any]:
        return self.ask("GET", f"/v1/jobs/{job_id}").json()

    def wait(self, job_id: str, states: tuple[str, ...] = ENDED, within_s: float = 120) -> dict[str, Any]:
        end = time.monotonic() + within_s
        while (job := self.status(job_id))["state"] not in states:
            assert time.monotonic() < end, job
            time.sleep(0.1)
        return job

    def volumes(self, job_id: str) -> dict[str, bytes]:
        """Name -> content of the NIfTI files of a job's result."""
        import gzip
        import io
        import zipfile

        answer = self.ask("GET", f"/v1/jobs/{job_id}/result")
        assert answer.status_code == 200, answer.text
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            names = [name for name in archive.namelist() if name.endswith(".nii.gz")]
            return {name: gzip.decompress(archive.read(name)) for name in names}


@pytest.fixture(scope="session")
def serve_knee(ray_cluster: None, registry: Registry) -> Callable[..., Any]:
    """serve_knee(folder, **settings of serving): a context manager that yields a `Service`."""

    @contextmanager
    def run(folder: Path, **settings: Any) -> Iterator[Service]:
        serving = {"pipelines": ["knee@champion"], "port": 0, "folder": str(folder), "lease_s": 3.0} | settings
        config = ExperimentConfig.model_validate({"serving": serving, "storage": {"root": str(registry.root)}})
        token, _ = create_token(folder / TOKENS, "anna", ("synthesize", "admin"))
        with served_here(config) as url:
            yield Service(url, {"Authorization": f"Bearer {token}"}, folder)

    return run


def pids(kind: str) -> list[int]:
    """The processes of a kind that belong to this test session's Ray."""
    ours = f"RAY_TMPDIR={os.environ['RAY_TMPDIR']}\0".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except OSError:  # it has ended, or is somebody else's
            continue
        if title.startswith(PROCESSES[kind].encode()) and ours in environment + b"\0":
            found.append(int(folder.name))
    return found


@pytest.fixture(scope="session")
def kill() -> Callable[[str], None]:
    """kill(kind): end all processes of a kind at once, as a machine's failure would."""

    def run(kind: str) -> None:
        victims = pids(kind)
        assert victims, f"no {kind} is running"
        for pid in victims:
            os.kill(pid, signal.SIGKILL)

    return run
