"""A real HTTP server around a service, with an engine that draws numbers instead of networks."""

import asyncio
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from playwright.sync_api import sync_playwright

from medgen3d.artifacts.bundle import BundleDataset
from medgen3d.config.experiment import CHAIN, ServingConfig
from medgen3d.core.errors import RegistryError
from medgen3d.serving.api.app import make_app
from medgen3d.serving.execution.engine import JobPlan, UndrawableJobError
from medgen3d.serving.inference.pipeline_catalog import ServedPipeline
from medgen3d.serving.security.tokens import create_token
from medgen3d.serving.service import open_service

KNEE = BundleDataset(
    name="knee",
    modality="MR",
    phantom=True,
    labels={0: "background", 7: "bone", 300: "cartilage"},
    spacing_mm=(3.0, 0.5, 0.75),
    plane=(16, 24),
    axis_codes="LPS",
    image_dtype="int16",
    inverse={"low": -100.0, "high": 300.0},
    shapes=[(5, 14, 22, 3), (6, 16, 24, 1), (9, 13, 20, 2)],
    digest="d" * 64,
)


class NumberEngine:
    """Pairs that follow from the seeds alone. While `hold` is cleared, no order ends."""

    def __init__(self) -> None:
        self.loaded = ServedPipeline(reference="knee@3", version=3, dataset=KNEE, max_depth=9, card="# Knee")
        self.hold = asyncio.Event()
        self.hold.set()
        self.live: list[str] = []
        self.begun: list[str] = []
        self.most_live = 0
        self.names = ["knee", "knee@champion", "knee@3"]
        self.pause_s = 0.0  # that each order takes
        self.fails: list[Exception] = []  # of the next orders

    async def pipelines(self) -> list[ServedPipeline]:
        return [self.loaded]

    async def find(self, reference: str) -> ServedPipeline:
        if reference not in self.names:
            raise RegistryError(f"no pipeline {reference!r} is offered here; offered are knee")
        return self.loaded

    async def accepted(self, reference: str) -> ServedPipeline:
        return self.loaded

    async def run(self, order: JobPlan, progress: Callable[[str, int, int], None]) -> list[tuple[Any, Any]]:
        self.begun.append(order.job_id)
        self.live.append(order.job_id)
        self.most_live = max(self.most_live, len(self.live))
        try:
            progress("mask_generator", 1, 2)
            await self.hold.wait()
            await asyncio.sleep(self.pause_s)
            if self.fails:
                raise self.fails.pop(0)
            for stage in CHAIN:
                progress(stage, 2, 2)
            return [self._pair(case) for case in order.cases]
        finally:
            self.live.remove(order.job_id)

    def _pair(self, case: Any) -> tuple[Any, Any]:
        rng = np.random.default_rng([case.seeds["image_sequence_generator"], case.style_seed or 0])
        image = rng.uniform(-1, 1, case.shape).astype(np.float32)
        mask = np.random.default_rng(case.seeds["mask_generator"]).integers(0, 3, case.shape).astype(np.uint8)
        if case.mask is not None:
            mask = case.mask
        for index, plane in case.given.items():
            mask[index] = plane
        return image, mask


@dataclass
class Served:
    url: str
    service: Any
    engine: NumberEngine
    folder: Path
    token: str
    loop: asyncio.AbstractEventLoop

    def call(self, function: Callable[[], Any]) -> None:
        """Call something in the server's event loop, and wait until it is done."""

        async def called() -> None:
            function()

        asyncio.run_coroutine_threadsafe(called(), self.loop).result(10)

    def client(self, token: str | None = "") -> httpx.Client:
        headers = {} if token is None else {"Authorization": f"Bearer {token or self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)


@contextmanager
def serving(folder: Path, engine: Any = None, **settings: Any) -> Iterator[Served]:
    """A server on a free port, in a thread with an event loop of its own."""
    made: dict[str, Any] = {}
    chosen = engine or NumberEngine()
    service = open_service(ServingConfig(pipelines=("knee",), **settings), folder, chosen)
    token, _ = create_token(service.tokens.path, "anna", ("synthesize",))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(make_app(service), log_level="warning", timeout_graceful_shutdown=2))

    def run() -> None:
        made["loop"] = asyncio.new_event_loop()
        made["loop"].run_until_complete(server.serve(sockets=[listener]))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        yield Served(url=url, service=service, engine=chosen, folder=folder, token=token, loop=made["loop"])
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        assert not thread.is_alive()


@dataclass
class ServerProcess:
    """A server in a process of its own, which can be looked at and killed."""

    process: subprocess.Popen[str]
    url: str
    token: str
    folder: Path

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=30)

    def peak_mib(self) -> float:
        """The most memory that the process has had resident so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


_PROGRAM = """
import importlib.util, json, sys, time
spec = importlib.util.spec_from_file_location("serving_conftest", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = module
spec.loader.exec_module(module)
engine = module.NumberEngine()
engine.pause_s = float(sys.argv[4])
with module.serving(module.Path(sys.argv[2]), engine, **json.loads(sys.argv[3])) as served:
    print(served.url, served.token, flush=True)
    sys.stdin.read()
"""


@contextmanager
def server_process(folder: Path, pause_s: float = 0.0, **settings: Any) -> Iterator[ServerProcess]:
    command = [sys.executable, "-c", _PROGRAM, __file__, str(folder), json.dumps(settings), str(pause_s)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        url, token = process.stdout.readline().split()
        try:
            yield ServerProcess(process=process, url=url, token=token, folder=folder)
        finally:
            process.kill()


@pytest.fixture(scope="session")
def make_server_process() -> Callable[..., Any]:
    """make_server_process(folder, pause_s=0, **settings): a context manager that yields a `ServerProcess`."""
    return server_process


@pytest.fixture(scope="session")
def make_server() -> Callable[..., Any]:
    """make_server(folder, engine=None, **settings): a context manager that yields a `Served`."""
    return serving


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path / "serving") as running:
        yield running


@pytest.fixture(scope="session")
def number_engine() -> type[NumberEngine]:
    return NumberEngine


@pytest.fixture(scope="session")
def poisoned() -> type[UndrawableJobError]:
    return UndrawableJobError


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless Chromium. It has an event loop of its own, so it ends with the module."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium on this machine: on Debian it is the package `chromium`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()
