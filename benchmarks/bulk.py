"""The cost of bulk synthesis besides the drawing itself: Ray Data's pipeline against a bare loop of the same chain.

Run: python benchmarks/bulk.py [--cases 8] [--rounds 1] [--only NAME]. Both draw, check and write the same cases of the
built-in pipeline, with fewer sampling steps than usual (--only trivial: of tiny random networks, without gates), on one
core with one torch thread, or on two where the table says so. What a case costs is the difference between a run of many
and one of few cases, so that starting counts for neither. Processor seconds are those of every process of the run.
Tables in Markdown.
"""

import argparse
import functools
import os
import platform
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "RAY_DATA_LOG_LEVEL": "ERROR"}
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import psutil

from medgen3d.artifacts.pipeline import Pipeline
from medgen3d.artifacts.run_status import RunStatus
from medgen3d.artifacts.storage import Folder
from medgen3d.artifacts.synthetic_set import merge_parts, open_for_writing
from medgen3d.config.experiment import CHAIN, StageActors, SynthesisConfig
from medgen3d.registry.builtin import resolve_builtin
from medgen3d.synthesis.drawing import advance_batch
from medgen3d.synthesis.gates import GateRules, Gates
from medgen3d.synthesis.run import open_run
from medgen3d.synthesis.run_options import RunOptions
from medgen3d.synthesis.set_writer import write_batch

FAST = {"mask_generator": {"sampling_steps": 8}, "refiner": {"sampling_steps": 3}}
"""A case of some seconds."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Seconds of one run, or per case."""

    wall: float
    processor: float

    def minus(self, other: "Cost", cases: int) -> "Cost":
        return Cost(wall=(self.wall - other.wall) / cases, processor=(self.processor - other.processor) / cases)


class Meter:
    """Counts the processor seconds of this process and all its descendants, those that have ended included.

    Ray's workers are not waited for by their parents, so what they took must be noted while they live.
    """

    def __init__(self) -> None:
        self._own = psutil.Process()
        self._spent: dict[psutil.Process, float] = {}
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.read()
            time.sleep(0.2)

    def read(self) -> float:
        """Seconds until now."""
        for process in [self._own, *self._own.children(recursive=True)]:
            with suppress(psutil.Error):  # it has ended
                times = process.cpu_times()
                self._spent[process] = times.user + times.system
        return sum(self._spent.copy().values())


@functools.cache
def meter() -> Meter:
    """Of this process."""
    return Meter()


def timed(run: Callable[[], object]) -> Cost:
    """What a run costs."""
    wall, processor = time.perf_counter(), meter().read()
    run()
    return Cost(wall=time.perf_counter() - wall, processor=meter().read() - processor)


@dataclass(frozen=True)
class Drawn:
    """A pipeline with the options of a run: sampling, gates."""

    pipeline: Pipeline
    options: RunOptions


def of_some_seconds() -> Drawn:
    """Cases of the built-in pipeline with few steps."""
    found = resolve_builtin("builtin/hippocampus")
    return Drawn(found, RunOptions(sampling=FAST, gates=GateRules(limits=found.info.limits)))


def of_almost_nothing() -> Drawn:
    """Cases of tiny random networks, one step each, without gates."""
    from bulk_memory import write_tiny

    return Drawn(write_tiny(Path(tempfile.mkdtemp())), RunOptions())


def bare(cases: int, out: Path, config: SynthesisConfig, drawn: Drawn) -> None:
    """The same batches, gates and files in one process."""
    import torch

    torch.set_num_threads(config.threads)
    run = open_run(drawn.pipeline, cases, 1, out, config, drawn.options)
    open_for_writing(out, run.info)
    stages = {stage: run.bundles[stage].trained_stage() for stage in run.stages}
    gates = Gates(run.gates, run.dataset, [])
    for key, spec in enumerate(run.ledger.next_batches(cases)):
        batch = run.in_flight(key, spec)
        for stage, trained in stages.items():
            batch = advance_batch(stage, trained, batch, run.dataset)
        batch = replace(batch, cases=[gates.judge(case) for case in batch.cases])
        write_batch(batch, run.dataset, run.info, str(out), config.max_redraws)
    merge_parts(out)


def on_ray(cases: int, out: Path, config: SynthesisConfig, drawn: Drawn) -> None:
    """The real thing; Ray runs already."""
    from medgen3d.synthesis.on_ray import synthesize

    synthesize(drawn.pipeline, cases, 1, out, config, options=drawn.options)


def per_case(
    draw: Callable[[int, Path, SynthesisConfig, Drawn], None],
    few: int,
    many: int,
    config: SynthesisConfig,
    drawn: Drawn,
) -> tuple[Cost, RunStatus | None]:
    """What a further case costs, and the status of the longer run."""
    config = config.model_copy(update={"max_redraws": 0})  # both draw every case once
    costs, status = [], None
    for cases in (few, many):
        out = Path(tempfile.mkdtemp(dir="/dev/shm")) / "set"
        costs.append(timed(lambda cases=cases, out=out: draw(cases, out, config, drawn)))
        status = RunStatus.read(Folder.of(out)) if (out / "status.json").exists() else None
        shutil.rmtree(out.parent)
    return costs[1].minus(costs[0], many - few), status


def row(name: str, costs: list[Cost], base: list[Cost]) -> str:
    """A row of a table: medians, and the ratio to what the first row costs."""
    wall, processor = (statistics.median(getattr(cost, kind) for cost in costs) for kind in ("wall", "processor"))
    ratio = statistics.median(cost.wall for cost in base) / wall
    return f"| {name} | {wall:.3g} | {processor:.3g} | {ratio:.2f} |"


HEAD = "| variant | wall s per case | processor s per case | wall, first row / this |\n| --- | --- | --- | --- |"


def compare(title: str, variants: dict[str, Callable[[], Cost]], rounds: int) -> None:
    """All variants take turns."""
    costs: dict[str, list[Cost]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            costs[name].append(run())
    first = next(iter(costs.values()))
    print(f"\n## {title}\n\n{HEAD}")
    for name, found in costs.items():
        print(row(name, found, first), flush=True)


def overhead(cases: int, rounds: int) -> None:
    """Ray Data against the bare loop, and where its time goes."""
    config, drawn = SynthesisConfig(batch=2), of_some_seconds()
    statuses: list[RunStatus] = []

    def piped() -> Cost:
        cost, status = per_case(on_ray, 2, cases, config, drawn)
        statuses.append(status) if status else None
        return cost

    variants = {
        "bare loop, one process": lambda: per_case(bare, 2, cases, config, drawn)[0],
        "Ray Data": piped,
    }
    compare("Cases of some seconds, batches of 2, one core", variants, rounds)
    print("\n| stage | cases | busy s | busy s per case |\n| --- | --- | --- | --- |")
    for name, stage in statuses[-1].stages.items():
        print(f"| {name} | {stage.num_done} | {stage.busy_s:.1f} | {stage.busy_s / stage.num_done:.2f} |")
    busy = sum(stage.busy_s for stage in statuses[-1].stages.values())
    print(f"\nof {statuses[-1].seconds:.0f} s, start included; all stages were busy for {busy:.0f} s in sum")


def trivial(cases: int, rounds: int) -> None:
    """What remains when there is hardly anything to draw."""
    few, many, config, drawn = 2 * cases, 34 * cases, SynthesisConfig(batch=1), of_almost_nothing()
    compare(
        "Tiny networks, one step each, 5 x 14 x 22 voxels, batches of 1, one core",
        {
            "bare loop, one process": lambda: per_case(bare, few, many, config, drawn)[0],
            "Ray Data": lambda: per_case(on_ray, few, many, config, drawn)[0],
        },
        rounds,
    )


def together(cases: int, rounds: int) -> None:
    """Several cases at a time against one."""
    drawn = of_some_seconds()
    variants = {
        f"{width} at a time": lambda width=width: per_case(
            bare, width, max(cases, 2 * width), SynthesisConfig(batch=width), drawn
        )[0]
        for width in (1, 2, 4, 8)
    }
    compare("Cases drawn together against one at a time, bare loop, one core", variants, rounds)


def workers(cases: int, rounds: int) -> None:
    """What two cores are used for."""
    few, many, config, drawn = 4, 2 * cases, SynthesisConfig(batch=2), of_some_seconds()
    two = config.model_copy(update={"num_actors": StageActors(**dict.fromkeys(CHAIN, 2))})
    variants = {
        "bare loop, one process, one thread": lambda: per_case(bare, few, many, config, drawn)[0],
        "bare loop, one process, two threads": lambda: per_case(
            bare, few, many, config.model_copy(update={"threads": 2}), drawn
        )[0],
        "Ray Data, one process per stage": lambda: per_case(on_ray, few, many, config, drawn)[0],
        "Ray Data, two processes per stage": lambda: per_case(on_ray, few, many, two, drawn)[0],
    }
    compare("Cases of some seconds, batches of 2, two cores", variants, rounds)


PARTS = {"together": (together, 1), "overhead": (overhead, 1), "trivial": (trivial, 1), "workers": (workers, 2)}
"""What is measured, and on how many cores."""


def main() -> None:
    """Measure and print tables in Markdown; every part in a process of its own, on its own cores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", choices=PARTS)
    arguments = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for name in [arguments.only] if arguments.only else PARTS:
        pid = os.fork()
        if pid == 0:
            part, cores = PARTS[name]
            os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))
            if name != "together":
                import ray

                ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False)
            part(arguments.cases, arguments.rounds)
            os._exit(0)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
