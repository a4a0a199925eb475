"""The HTTP service's engine against the same chain called directly, and what sharing device batches is worth.

Run: python benchmarks/serving.py [--rounds 9] [--only widths added]. It starts a Ray of its own. What is compared
takes turns, so that a busy machine slows all alike; the tables give medians.
"""

import argparse
import asyncio
import dataclasses
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray import serve

from medgen3d.config.engine import EngineConfig, StageReplicas
from medgen3d.config.experiment import CHAIN, ExperimentConfig
from medgen3d.recipes.cluster import connect
from medgen3d.serving.execution.engine import CaseSpec, JobPlan
from medgen3d.serving.execution.results import write_result
from medgen3d.serving.inference.pipeline_catalog import PipelineCatalog, PipelineRegistry, StageLoader
from medgen3d.serving.on_ray.app import stage_deployment
from medgen3d.serving.on_ray.engine import RayEngine
from medgen3d.serving.queue.database import Database, sqlite_url
from medgen3d.serving.queue.job_store import JobStore, NewJob, new_id
from medgen3d.serving.queue.leases import Leases
from medgen3d.serving.schemas import JobRequest
from medgen3d_stages.chain import TrainedStage, draw_images, draw_masks, refine
from medgen3d_stages.mask_generator.sampler import MaskRequest

PIPELINE = "builtin/hippocampus"
LARGE, SMALL = (64, 512, 512), (12, 51, 34)
STEPS = 5  # of the 25 that the pipeline takes
WINDOW_SHAPE = (8, 51, 34)  # a mask of one window


class TrivialRun:
    """Gives an array of the right form at its first step."""

    def __init__(self, make: Callable[[], np.ndarray[Any, Any]]) -> None:
        self.make, self.done, self.total = make, 0, 1

    @property
    def rows(self) -> int:
        return 1 - self.done

    def result(self) -> np.ndarray[Any, Any]:
        return self.make()


class TrivialStage:
    """A stage that computes next to nothing: what is left is moving 16 MiB of mask and 64 MiB of image."""

    def __init__(self, name: str) -> None:
        self.name = name

    def sample(self, networks: Any, inputs: Sequence[Any], generators: Any) -> list[np.ndarray[Any, Any]]:
        return [self._make(item) for item in inputs]

    def begin(self, networks: Any, item: Any, generator: Any) -> TrivialRun:
        return TrivialRun(lambda: self._make(item))

    def advance(self, networks: Any, runs: Sequence[TrivialRun], width: int | None = None) -> None:
        for run in runs:
            run.done = 1

    def _make(self, item: Any) -> np.ndarray[Any, Any]:
        if self.name == "mask_generator":
            return np.ones(item.shape, np.uint8)
        return item.mask.astype(np.float32) if self.name == "image_sequence_generator" else item.image * np.float32(0.5)


class TrivialLoader:
    """Loads trivial stages."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def __call__(self, reference: str) -> TrainedStage:
        return TrainedStage(TrivialStage(self.stage), {})  # type: ignore[arg-type]


class FewSteps:
    """Loads the mask generator with fewer denoising steps: what is compared costs the same per step."""

    def __call__(self, reference: str) -> TrainedStage:
        trained = StageLoader(registry_catalog(ExperimentConfig()), "mask_generator", "cpu")(reference)
        stage: Any = trained.stage
        fewer = type(stage)(dataclasses.replace(stage.config, sampling_steps=STEPS), stage.spec)
        return TrainedStage(fewer, trained.networks)


@serve.deployment
class WholeSamples:
    """The other way to share batches: Serve collects requests, and whole samples are drawn together."""

    def __init__(self, load: FewSteps, threads: int) -> None:
        torch.set_num_threads(threads)
        self.trained = load(PIPELINE)

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.05)
    async def collected(self, seeds: list[int]) -> list[np.ndarray[Any, Any]]:
        shapes = [WINDOW_SHAPE] * len(seeds)
        return await asyncio.to_thread(draw_masks, self.trained, shapes, seeds)

    async def draw(self, seed: int) -> np.ndarray[Any, Any]:
        return await self.collected(seed)


@serve.deployment
class Root:
    """Serve wants one deployment above all others."""

    def __init__(self, *stages: Any) -> None:
        self.stages = stages


def registry_catalog(config: ExperimentConfig) -> PipelineCatalog:
    """The catalog of the benchmarked pipeline, on the configured registry."""
    return PipelineCatalog(PipelineRegistry(config.storage), (PIPELINE,))


def show(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table in Markdown."""
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)


# Added time


def direct(stages: Mapping[str, TrainedStage], shape: tuple[int, int, int], seed: int) -> Any:
    """The chain in this process."""
    masks = draw_masks(stages["mask_generator"], [shape], [seed])
    images = draw_images(stages["image_sequence_generator"], masks, [seed])
    return refine(stages["refiner"], images, masks, [seed])


def served_engine(name: str, config: ExperimentConfig, loaders: Mapping[str, Any]) -> RayEngine:
    """An engine over deployments of its own."""
    catalog = registry_catalog(config)
    stages = [stage_deployment(stage, loaders[stage], list, config, 1, "cpu") for stage in CHAIN]
    serve.run(Root.options(ray_actor_options={"num_cpus": 0}).bind(*stages), name=name, route_prefix=None)
    handles = {stage: serve.get_deployment_handle(stage, name) for stage in CHAIN}
    return RayEngine(handles, catalog, config.serving.engine, name)


async def timed(work: Awaitable[Any]) -> float:
    """Seconds that something takes."""
    begin = time.perf_counter()
    await work
    return time.perf_counter() - begin


class Stopwatch:
    """Seconds of a job outside its stages: before the first, from one to the next, and after the last."""

    def __init__(self) -> None:
        self.outside, self._stage, self._since = 0.0, "", time.perf_counter()

    def tell(self, stage: str, _done: int, _total: int) -> None:
        """What the engine calls: first for every stage, then for one that begins, goes on, or ends."""
        if stage != self._stage:
            self.stop()
        self._stage, self._since = stage, time.perf_counter()

    def stop(self) -> None:
        """A stage begins, or the job has ended."""
        self.outside += time.perf_counter() - self._since


async def added_time(rounds: int, title: str, engine: RayEngine, stages: Any, shape: tuple[int, int, int]) -> list[str]:
    """A row: direct, served, what is added, and what passes outside the stages, in milliseconds."""
    times: dict[str, list[float]] = {"direct": [], "served": [], "added": [], "outside": []}
    for number in range(rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            case = CaseSpec(case_id="case", shape=shape, seeds=dict.fromkeys(CHAIN, number))
            order = JobPlan(job_id=f"{title} {number}", pipeline=PIPELINE, cases=[case], folder=Path(folder))
            alone = await timed(asyncio.to_thread(direct, stages, shape, number))
            watch = Stopwatch()
            served = await timed(engine.run(order, watch.tell))
            watch.stop()
        if number:  # the first round warms up
            for name, seconds in zip(times, (alone, served, served - alone, watch.outside), strict=True):
                times[name].append(seconds)
    spread = (min(times["added"]), max(times["added"]))
    figures = [*(statistics.median(seconds) for seconds in times.values()), *spread]
    return [title, *(f"{1000 * each:.0f}" for each in figures)]


async def measure_added(rounds: int) -> None:
    """The first table."""
    config = ExperimentConfig()
    head = ("chain", "direct [ms]", "served [ms]", "added [ms]", "outside stages [ms]", "least added", "most added")
    trivial = {stage: TrivialLoader(stage) for stage in CHAIN}
    engine = served_engine("trivial", config, trivial)
    stages = {stage: loader("") for stage, loader in trivial.items()}
    row = await added_time(rounds, "trivial stages, 64 x 512 x 512", engine, stages, LARGE)
    show("Added time between acceptance and finished arrays", head, [row])
    serve.delete("trivial")
    real = {stage: StageLoader(registry_catalog(config), stage, "cpu") for stage in CHAIN}
    engine = served_engine("real", config, real)
    stages = {stage: loader(PIPELINE) for stage, loader in real.items()}
    row = await added_time(max(rounds // 3, 1), f"{PIPELINE}, 12 x 51 x 34", engine, stages, SMALL)
    show("The same with real stages", head, [row])
    serve.delete("real")


def measure_beside(rounds: int) -> None:
    """What a job takes beside its engine: its row in the database, and its files."""
    config = ExperimentConfig()
    loaded = registry_catalog(config).find(PIPELINE)
    rng = np.random.default_rng(0)
    smooth = np.sin(np.linspace(0, 20, LARGE[2])) * np.linspace(-0.8, 0.8, LARGE[1])[:, None]
    image = np.clip(smooth + rng.normal(0, 0.05, LARGE), -1, 1).astype(np.float32)
    mask = np.broadcast_to((smooth > 0).astype(np.uint8), LARGE)
    request = JobRequest(pipeline=PIPELINE)
    case = CaseSpec(case_id="case", shape=LARGE, seeds={})
    seconds: dict[str, list[float]] = {"row": [], "files": []}
    with tempfile.TemporaryDirectory() as folder:
        database = Database(sqlite_url(Path(folder) / "jobs.db"))
        store, leases = JobStore(database, max_queued=9, jobs_per_owner=9), Leases(database, lease_s=60, max_attempts=2)
        for _ in range(rounds):
            begin = time.perf_counter()
            store.submit(
                NewJob(id=new_id(), owner="anna", request=request, pipeline=PIPELINE, digest="0" * 64, num_pairs=1)
            )
            claimed = leases.claim("benchmark")
            assert claimed is not None
            leases.finish(claimed.id, claimed.attempt, 1)
            seconds["row"].append(time.perf_counter() - begin)
            begin = time.perf_counter()
            pairs = [(image, mask)]
            size = write_result(Path(folder, "result"), Path(folder, "result.zip"), request, loaded, [case], pairs)
            seconds["files"].append(time.perf_counter() - begin)
        database.close()
    row, files = (1000 * statistics.median(values) for values in seconds.values())
    rows = [
        ("a job accepted, claimed and finished in SQLite", f"{row:.0f}"),
        (f"its pair of 64 x 512 x 512 compressed and zipped, {size / 2**20:.0f} MiB", f"{files:.0f}"),
    ]
    show("Beside it", ("what", "median [ms]"), rows)


# Throughput


async def clients(draw: Callable[[int], Awaitable[Any]], number: int, requests: int) -> tuple[float, list[float]]:
    """(requests per second, seconds of each) of clients that ask again as soon as they are answered."""
    waiting, latencies = iter(range(requests)), []

    async def client() -> None:
        latencies.extend([await timed(draw(seed)) for seed in waiting])

    begin = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(number)))
    return requests / (time.perf_counter() - begin), latencies


def lock_step(name: str, *, width: int, replicas: int, at_once: int = 16, threads: int = 1) -> Any:
    """A way to serve the mask generator: its name, and a call of it."""
    replica = StageReplicas(min_replicas=replicas, max_replicas=replicas, max_cases=at_once)
    engine = EngineConfig(mask_generator=replica, threads=threads)
    config = ExperimentConfig.model_validate({"serving": {"engine": engine.model_dump(), "max_running": 100}})
    stage = stage_deployment("mask_generator", FewSteps(), list, config, width, "cpu")
    serve.run(Root.options(ray_actor_options={"num_cpus": 0}).bind(stage), name=name, route_prefix=None)
    handle = serve.get_deployment_handle("mask_generator", name).options(stream=True)

    async def draw(seed: int) -> None:
        async for _ in handle.draw.remote(PIPELINE, f"{name} {seed}", seed, WINDOW_SHAPE, {}):
            pass

    return draw


def whole_samples(name: str, threads: int = 1) -> Any:
    """The other way to serve the mask generator."""
    deployment = WholeSamples.options(max_ongoing_requests=16, ray_actor_options={"num_cpus": 0.5})
    handle = serve.run(deployment.bind(FewSteps(), threads), name=name, route_prefix=None)

    async def draw(seed: int) -> None:
        await handle.draw.remote(seed)

    return draw


async def measure_throughput(rounds: int, requests: int) -> None:
    """The second table."""
    ways = {
        "one request at a time, 1 process": lock_step("one", width=1, replicas=1, at_once=1),
        "lock-step, width 1, 1 process": lock_step("w1", width=1, replicas=1),
        "lock-step, width 4, 1 process": lock_step("w4", width=4, replicas=1),
        "lock-step, width 8, 1 process": lock_step("w8", width=8, replicas=1),
        "serve.batch of whole samples, up to 8, 1 process": whole_samples("batch"),
        "one request at a time, 1 process, 2 threads": lock_step("threads", width=1, replicas=1, at_once=1, threads=2),
        "lock-step, width 1, 2 processes": lock_step("two", width=1, replicas=2),
        "lock-step, width 4, 2 processes": lock_step("both", width=4, replicas=2),
    }
    for draw in ways.values():
        await draw(0)
    rows = []
    for number in (1, 4, 16):
        rates: dict[str, list[float]] = {name: [] for name in ways}
        latencies: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, draw in ways.items():
                rate, each = await clients(draw, number, max(requests * number // 16, 4))
                rates[name].append(rate)
                latencies[name] += each
        first = statistics.median(rates["one request at a time, 1 process"])
        for name, found in rates.items():
            p50, p95, p99 = np.percentile(latencies[name], (50, 95, 99))
            rate = statistics.median(found)
            rows.append(
                (number, name, f"{rate:.2f}", f"{rate / first:.2f} x", f"{p50:.1f}", f"{p95:.1f}", f"{p99:.1f}")
            )
    head = ("clients", "mask generator", "requests/s", "against one at a time", "p50 [s]", "p95 [s]", "p99 [s]")
    show(f"Throughput, {PIPELINE}, masks of one window, {STEPS} steps", head, rows)


def measure_widths(rounds: int) -> None:
    """The third table: what the device itself gains by wider batches, in seconds of its one CPU."""
    trained = StageLoader(registry_catalog(ExperimentConfig()), "mask_generator", "cpu")(PIPELINE)
    seconds: dict[tuple[int, int], list[float]] = {}
    for number in range(rounds + 1):
        for width in (1, 2, 4, 8):
            for masks in (1, 8):
                runs = [trained.begin(MaskRequest(shape=WINDOW_SHAPE), seed) for seed in range(masks)]
                begin = time.process_time()
                for _ in range(STEPS):
                    trained.advance(runs, width)
                if number:  # the first round warms up
                    taken = (time.process_time() - begin) / (STEPS * masks)
                    seconds.setdefault((width, masks), []).append(taken)
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    first = medians[1, 1]
    rows = [
        (width, *(f"{1000 * medians[width, masks]:.0f} ({first / medians[width, masks]:.2f} x)" for masks in (8, 1)))
        for width in (1, 2, 4, 8)
    ]
    head = ("width", "eight masks at once", "one mask, the rest of the batch filled up")
    show(f"CPU time per mask and denoising step [ms], one thread, {PIPELINE}", head, rows)


async def measure(arguments: argparse.Namespace) -> None:
    """What needs Ray of what was asked for."""
    if "added" in arguments.only:
        await measure_added(arguments.rounds)
    if "throughput" in arguments.only:
        await measure_throughput(max(arguments.rounds // 3, 1), arguments.requests)


def main() -> None:
    """Measure and print the tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=32, help="Of 16 clients, per round and way; fewer of fewer.")
    parser.add_argument("--only", nargs="*", default=["widths", "beside", "added", "throughput"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {os.cpu_count()} cores, torch {torch.__version__}, ray {ray.__version__}")
    if "widths" in arguments.only:
        measure_widths(arguments.rounds)
    if "beside" in arguments.only:
        measure_beside(max(arguments.rounds // 3, 1))
    if not {"added", "throughput"} & set(arguments.only):
        return
    with connect():
        serve.start(proxy_location="Disabled")
        asyncio.run(measure(arguments))
        serve.shutdown()


if __name__ == "__main__":
    main()
