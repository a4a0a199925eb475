"""The stages on a device: bf16 against float32 on the CPU, seconds and FLOPs of a training step, seconds of a sample.

    python benchmarks/stage_speed.py --preset workstation --shape 36 64 48
    python benchmarks/stage_speed.py --preset cluster --shape 128 256 256 --batch 4
    python benchmarks/stage_speed.py --builtin [--json FILE] [--rounds 3]

Volumes are smooth random ones with three labels and weights are random, which changes no speed. Times are medians,
taken after a warm-up and with the device synchronised; FLOPs are those that torch counts in one step.

--builtin: One pair of 36 x 51 x 34 voxels by the pipeline that is built in, on one thread of the CPU: network calls,
CPU and wall seconds of each stage, as shipped and with the steps of the first version (25 and 10), which take turns;
medians.
--refiner-call: One call of the built-in refiner on the axial slices of such a pair, on one thread, in several ways.
"""

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch.utils.flop_counter import FlopCounterMode

from medgen3d.artifacts.bundle import read_bundle
from medgen3d.config.experiment import CHAIN, ExperimentConfig
from medgen3d.config.load import load_config
from medgen3d.registry.builtin import ROOT
from medgen3d.training.loop import train
from medgen3d.training.state import TrainingState
from medgen3d_stages.arrays import Batch, Example
from medgen3d_stages.catalogue import make_stage
from medgen3d_stages.chain import TrainedStage, draw_images, draw_masks, refine
from medgen3d_stages.contract import DataSpec, Stage

NUM_LABELS = 3
PAIR = (36, 51, 34)
FIRST: dict[str, int | None] = {"mask_generator": 25, "image_sequence_generator": None, "refiner": 10}
"""Steps of the first version; the sequence generator takes none."""
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def main() -> None:
    """Print a Markdown table, a row per stage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="workstation")
    parser.add_argument("--shape", type=int, nargs=3, default=(36, 64, 48), metavar=("D", "H", "W"))
    parser.add_argument("--batch", type=int, help="examples per training step; by default the preset's")
    parser.add_argument("--cases", type=int, default=8, help="cases drawn together")
    parser.add_argument("--steps", type=int, default=20, help="timed training steps")
    parser.add_argument("--no-samples", action="store_true")
    parser.add_argument("--no-cpu", action="store_true", help="leave out the comparison with float32 on the CPU")
    parser.add_argument("--peak-tflops", type=float, help="bf16 peak of the device, measured; adds the share of it")
    parser.add_argument("--builtin", action="store_true", help="one pair of the built-in pipeline, and nothing else")
    parser.add_argument("--json", type=Path, help="with --builtin, the file to write the shipped settings' rows to")
    parser.add_argument("--rounds", type=int, default=3, help="with --builtin")
    parser.add_argument("--refiner-call", action="store_true", help="ways to compute a call, some minutes, no more")
    options = parser.parse_args()
    if options.refiner_call:
        _refiner_call()
        return
    if options.builtin:
        _builtin(options.rounds, options.json)
        return
    config = load_config(None, [options.preset], [])
    depth, height, width = options.shape
    spec = DataSpec(num_labels=NUM_LABELS, plane=(height, width), spacing_mm=(1.0, 1.0, 1.0), max_depth=depth)
    example = _example(options.shape)
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else platform.processor() or platform.machine()
    print(f"{name}, torch {torch.__version__}, {options.preset}, {options.shape}\n")
    columns = ["stage", "M parameters", "batch", "ms per step", "TFLOP/s", "share of peak", "GiB", "bf16 - fp32 loss"]
    columns += ["s per case alone", f"s per case of {options.cases}"]
    print("| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns))
    for name in CHAIN:
        stage = make_stage(name, getattr(config, name), spec)
        cells = [name, *_training(stage, config, example, options)]
        cells += ["–", "–"] if options.no_samples else _sampling(stage, example, options.cases)
        print("| " + " | ".join(cells) + " |", flush=True)


@dataclass(frozen=True)
class Drawn:
    """What one stage took for one pair; `total` is all of them."""

    stage: str
    calls: int
    cpu_s: float
    wall_s: float


def _builtin(rounds: int, file: Path | None) -> None:
    torch.set_num_threads(1)
    pipeline = ROOT / "hippocampus"
    shipped = {name: read_bundle(pipeline / name).trained_stage() for name in CHAIN}
    ways = {"as shipped": shipped, "25 and 10 steps": {name: _with_steps(shipped[name], FIRST[name]) for name in CHAIN}}
    taken: dict[str, list[list[Drawn]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, stages in ways.items():
            taken[way].append(_one_pair(stages))
    print("| settings | stage | network calls | CPU s | wall s |\n| --- | --- | ---: | ---: | ---: |")
    for way, pairs in taken.items():
        rows = [_median(same) for same in zip(*pairs, strict=True)]
        for row in rows:
            print(f"| {way} | {row.stage} | {row.calls} | {row.cpu_s:.2f} | {row.wall_s:.2f} |")
        if file and way == "as shipped":
            file.write_text(json.dumps({"rows": [asdict(row) for row in rows]}, indent=1))


def _with_steps(trained: TrainedStage, steps: int | None) -> TrainedStage:
    if steps is None:
        return trained
    config = replace(trained.stage.config, sampling_steps=steps)  # type: ignore[attr-defined]
    return TrainedStage(type(trained.stage)(config, trained.stage.spec), trained.networks)  # type: ignore[call-arg]


def _one_pair(stages: dict[str, TrainedStage]) -> list[Drawn]:
    results: dict[str, object] = {}
    draws: dict[str, Callable[[], list[object]]] = {
        "mask_generator": lambda: draw_masks(stages["mask_generator"], [PAIR], [1]),
        "image_sequence_generator": lambda: draw_images(
            stages["image_sequence_generator"], [results["mask_generator"]], [1]
        ),
        "refiner": lambda: refine(
            stages["refiner"], [results["image_sequence_generator"]], [results["mask_generator"]], [1]
        ),
    }
    rows = []
    for name in CHAIN:
        with _counted_calls(stages[name]) as calls:
            cpu, wall = time.process_time(), time.perf_counter()
            (results[name],) = draws[name]()
            rows.append(Drawn(name, len(calls), time.process_time() - cpu, time.perf_counter() - wall))
    sums = (sum(getattr(row, field) for row in rows) for field in ("calls", "cpu_s", "wall_s"))
    return [*rows, Drawn("total", *sums)]


@contextmanager
def _counted_calls(trained: TrainedStage) -> Iterator[list[None]]:
    """One entry per call of the stage's network."""
    calls: list[None] = []
    handles = [
        network.register_forward_pre_hook(lambda *_: calls.append(None)) for network in trained.networks.values()
    ]
    yield calls
    for handle in handles:
        handle.remove()


def _median(rows: tuple[Drawn, ...]) -> Drawn:
    cpu, wall = (statistics.median(getattr(row, field) for row in rows) for field in ("cpu_s", "wall_s"))
    return Drawn(rows[0].stage, rows[0].calls, cpu, wall)


@torch.inference_mode()
def _refiner_call() -> None:
    torch.set_num_threads(1)
    network = read_bundle(ROOT / "hippocampus" / "refiner").trained_stage().networks["denoiser"].eval()
    plane, count = (52, 36), PAIR[0]
    noisy, mask = torch.randn(count, 1, *plane), torch.randint(0, NUM_LABELS, (count, *plane), dtype=torch.int32)
    told = noisy, mask, torch.zeros(count, dtype=torch.long), torch.full((count,), 109)
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    compiled = torch.compile(network)

    def by(width: int) -> torch.Tensor:
        return torch.cat([network(*parts) for parts in zip(*(array.split(width) for array in told), strict=True)])

    def in_bf16() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            answer: torch.Tensor = network(*told)
        return answer.float()

    ways: dict[str, Callable[[], torch.Tensor]] = {
        "all slices": lambda: network(*told),
        "12 slices at a time": lambda: by(12),
        "4 slices at a time": lambda: by(4),
        "slice by slice": lambda: by(1),
        "channels last": lambda: last(noisy.to(memory_format=torch.channels_last), *told[1:]),
        "bfloat16": in_bf16,
        "torch.compile": lambda: compiled(*told),
    }
    print("| one call of the refiner | CPU s | largest difference |\n| --- | ---: | ---: |")
    reference = ways["all slices"]()
    for name, way in ways.items():
        difference, times = float((way() - reference).abs().max()), []
        for _ in range(3):
            since = time.process_time()
            way()
            times.append(time.process_time() - since)
        print(f"| {name} | {statistics.median(times):.2f} | {difference:.1e} |", flush=True)


def _example(shape: tuple[int, int, int]) -> Example:
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), 4)
    image = (smooth / np.abs(smooth).max() + 0.05 * rng.standard_normal(shape)).clip(-1, 1).astype(np.float32)
    mask = np.digitize(smooth, np.quantile(smooth, [0.8, 0.9])).astype(np.uint8)
    return Example(image=image, mask=mask, box=(0, shape[1], 0, shape[2]))


def _training(stage: Stage, config: ExperimentConfig, example: Example, options: argparse.Namespace) -> list[str]:
    settings = getattr(config.training, stage.name)
    size = options.batch or settings.batch_size
    cut = [stage.cut(example, np.random.default_rng(number)) for number in range(size)]
    batch: Batch = {key: torch.stack([part[key] for part in cut]) for key in cut[0]}
    fast = settings.model_copy(update={"precision": "bf16", "steps": options.steps + 6})
    state = TrainingState(stage, fast, 0, DEVICE)
    difference = "–" if options.no_cpu else _difference(stage, state, batch)
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times: list[float] = []

    def note(_state: TrainingState, _losses: dict[str, float]) -> bool:
        _synchronise()
        times.append(time.perf_counter())
        return True

    train(stage, state, [batch] * (options.steps + 5), fast, seed=0, device=DEVICE, after_step=note)
    seconds = statistics.median(np.diff(times[4:]))
    with FlopCounterMode(display=False) as counter:
        train(stage, state, [batch], fast, seed=0, device=DEVICE, after_step=lambda *_: True)
    rate = counter.get_total_flops() / seconds / 1e12
    parameters = sum(p.numel() for network in state.networks.values() for p in network.parameters()) / 1e6
    share = f"{100 * rate / options.peak_tflops:.1f} %" if options.peak_tflops else "–"
    memory = f"{torch.cuda.max_memory_allocated() / 2**30:.2f}" if DEVICE.type == "cuda" else "–"
    return [f"{parameters:.1f}", str(size), f"{1e3 * seconds:.1f}", f"{rate:.2f}", share, memory, difference]


def _synchronise() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def _difference(stage: Stage, state: TrainingState, batch: Batch) -> str:
    """Relative difference of the first turn's loss: bf16 on the GPU against float32 on the CPU, the same weights."""
    turn = next(iter(stage.turns))
    on_cpu = {name: copy.deepcopy(network).cpu() for name, network in state.networks.items()}
    on_gpu = {key: value.to(DEVICE) for key, value in batch.items()}
    with torch.no_grad():
        exact = stage.loss(turn, on_cpu, batch, torch.Generator().manual_seed(0), 0.0)["total"]
        with torch.autocast(DEVICE.type, torch.bfloat16):
            found = stage.loss(turn, state.networks, on_gpu, torch.Generator().manual_seed(0), 0.0)["total"]
    return f"{abs(float(found) / float(exact) - 1):.1e}"


def _sampling(stage: Stage, example: Example, num_cases: int) -> list[str]:
    networks = {name: network.to(DEVICE) for name, network in stage.build().items() if name in stage.sampled}
    trained = TrainedStage(stage, networks)
    image, mask = example.cropped()
    draw: dict[str, Callable[[int], object]] = {
        "mask_generator": lambda count: draw_masks(trained, [mask.shape] * count, range(count)),
        "image_sequence_generator": lambda count: draw_images(trained, [mask] * count, range(count)),
        "refiner": lambda count: refine(trained, [image] * count, [mask] * count, range(count)),
    }
    draw[stage.name](1)
    cells = []
    for count in (1, num_cases):
        _synchronise()
        since = time.perf_counter()
        draw[stage.name](count)
        _synchronise()
        cells.append(f"{(time.perf_counter() - since) / count:.2f}")
    return cells


if __name__ == "__main__":
    main()
