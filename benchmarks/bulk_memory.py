"""Memory of bulk synthesis while thousands of tiny cases are drawn: it must not grow with their number.

Run: python benchmarks/bulk_memory.py [--cases 5000] [--picture docs/images/bulk_memory.png]. The real pipeline, stages
of random weights on volumes of 5 x 14 x 22 voxels, on this machine's cores. Prints a table and draws a picture of the
resident memory of the driver and of all workers, and of what lies in Ray's object store.
"""

import argparse
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "RAY_DATA_LOG_LEVEL": "ERROR"}
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import matplotlib as mpl
import psutil
import torch

mpl.use("Agg")
import matplotlib.pyplot as plt
import ray

from medgen3d.artifacts.bundle import BundleInfo, write_bundle
from medgen3d.artifacts.bundle_weights import named_weights
from medgen3d.artifacts.pipeline import Pipeline
from medgen3d.artifacts.provenance import Provenance
from medgen3d.artifacts.synthetic_set import SyntheticSet
from medgen3d.config.experiment import SynthesisConfig
from medgen3d.synthesis.on_ray import WRITTEN, synthesize
from medgen3d_stages.catalogue import config_type, make_stage
from medgen3d_stages.contract import DataSpec

DATASET = {
    "name": "tiny",
    "modality": "MR",
    "phantom": True,
    "labels": {0: "background", 1: "one", 2: "two"},
    "spacing_mm": (3.0, 0.5, 0.75),
    "plane": (16, 24),
    "axis_codes": "RAS",
    "image_dtype": "int16",
    "inverse": {"low": -100.0, "high": 300.0},
    "shapes": [(5, 14, 22, 1)],
    "digest": "d" * 64,
}
OPTIONS = {
    "mask_generator": {"window": 4, "overlap": 1, "channels": (8, 16), "attention_levels": (False, True)},
    "image_sequence_generator": {"style": 4, "channels": (8, 16), "spade_channels": 8},
    "refiner": {"channels": (8, 16), "attention_levels": (False, True), "spade_channels": 8, "crop": 16},
}
STEPS = {"mask_generator": {"sampling_steps": 1}, "refiner": {"sampling_steps": 1}}


def write_tiny(root: Path) -> Pipeline:
    """A pipeline of small random networks."""
    spec = {"num_labels": 3, "plane": (16, 24), "spacing_mm": (3.0, 0.5, 0.75), "max_depth": 5}
    for name, options in OPTIONS.items():
        chosen = options | STEPS.get(name, {})
        stage = make_stage(name, config_type(name)(**chosen), DataSpec(**spec))
        networks = {key: network for key, network in stage.build().items() if key in stage.sampled}
        info = BundleInfo(stage=name, stage_config=chosen, spec=spec, dataset=DATASET)
        made_from = Provenance(dataset_name="tiny", dataset_digest="d" * 64, config_hash="c" * 64, seed=1)
        write_bundle(root / name, info, named_weights(networks), made_from, preview_png=None)
    return Pipeline.of_bundles("tiny", 1, {name: root / name for name in OPTIONS})


def resident_mb(process: psutil.Process) -> float:
    """Resident memory without what it shares, such as the object store [MB]."""
    try:
        memory = process.memory_info()
    except psutil.Error:  # it has ended
        return 0.0
    return (memory.rss - memory.shared) / 1e6


def workers_mb() -> float:
    """Of all of Ray's workers below this process [MB]."""
    return sum(resident_mb(process) for process in psutil.Process().children(recursive=True))


def store_mb() -> float:
    """What is used of the object store [MB]."""
    total, free = ray.cluster_resources(), ray.available_resources()
    return (total.get("object_store_memory", 0) - free.get("object_store_memory", 0)) / 1e6


def main() -> None:
    """Draw, watch, and say what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp())
    torch.manual_seed(0)
    pipeline = write_tiny(root / "bundles")
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False, object_store_memory=300 * 2**20)
    seen: list[tuple[float, int, float, float, float]] = []
    done, began, over = [0], time.monotonic(), threading.Event()

    def watch() -> None:
        while not over.wait(2.0):
            seen.append((time.monotonic() - began, done[0], resident_mb(psutil.Process()), workers_mb(), store_mb()))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    synthesize(
        pipeline,
        arguments.cases,
        0,
        root / "set",
        SynthesisConfig(batch=arguments.batch, cpus_per_actor=0.25),
        lambda counts, _total, _note: done.__setitem__(0, counts[WRITTEN]),
    )
    over.set()
    watcher.join()
    assert len(SyntheticSet(root / "set").case_ids) == arguments.cases
    print(f"{arguments.cases} cases in {seen[-1][0]:.0f} s\n")
    print("| cases done | driver MB | workers MB | object store MB |\n| --- | --- | --- | --- |")
    for share in (0.1, 0.25, 0.5, 0.75, 1.0):
        _, number, driver, workers, store = next((row for row in seen if row[1] >= share * arguments.cases), seen[-1])
        print(f"| {number} | {driver:.0f} | {workers:.0f} | {store:.1f} |")
    print(f"\nmost in the object store: {max(row[4] for row in seen):.1f} MB of 315")
    if arguments.picture:
        draw(seen, arguments.picture)
    ray.shutdown()
    shutil.rmtree(root)


def draw(seen: list[tuple[float, int, float, float, float]], path: Path) -> None:
    """One panel per kind of memory over the number of cases."""
    figure, panels = plt.subplots(3, 1, figsize=(7, 7), sharex=True)
    for panel, place, name in zip(panels, (2, 3, 4), ("driver", "all workers", "object store"), strict=True):
        panel.plot([row[1] for row in seen], [row[place] for row in seen])
        panel.set_ylabel(f"{name} [MB]")
        panel.set_ylim(bottom=0)
    panels[-1].set_xlabel("cases written")
    figure.tight_layout()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
