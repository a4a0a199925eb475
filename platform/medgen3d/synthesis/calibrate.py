"""An estimate of what a run will need: one case is drawn in this process, checked, packed, measured and thrown away."""

import os
import resource
import time
from collections import Counter
from dataclasses import dataclass

import numpy as np

from medgen3d.artifacts.manifest import SyntheticSetInfo
from medgen3d.artifacts.pair_files import encode_pair
from medgen3d.artifacts.planned_case import Shape
from medgen3d.artifacts.training_limits import fingerprints_of
from medgen3d.config.experiment import SynthesisConfig
from medgen3d.synthesis.batch_codec import GATES, WRITTEN, InFlightCase
from medgen3d.synthesis.case_ledger import BatchSpec
from medgen3d.synthesis.gates import Gates
from medgen3d.synthesis.given_masks import with_masks
from medgen3d.synthesis.run import SynthesisRun


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Measured of one case, and reckoned for all that are missing.

    seconds_per_case: By stage, of the one case.
    seconds: For all, whatever is slower: the slowest stage, or all stages on the cores of this machine. Batches of
        several cases are usually faster; other machines' cores and rejected draws are not counted.
    memory_bytes: Of all processes together, if each takes as much as this one did.
    disk_bytes: Of the files.
    """

    seconds_per_case: dict[str, float]
    seconds: float
    memory_bytes: int
    disk_bytes: int


def calibrate(run: SynthesisRun, config: SynthesisConfig, shapes: Counter[Shape]) -> Estimate | None:
    """Draw the first missing case, and reckon; None if no case is missing.

    Args:
        run: What is to be drawn.
        config: Actors and threads.
        shapes: How many of all cases have each size.

    Raises:
        ArtifactError: A bundle cannot be used.
    """
    missing = run.ledger.missing
    if not len(missing):
        return None
    import torch

    torch.set_num_threads(config.threads)
    number = int(missing[0])
    (case,) = with_masks(run.in_flight(0, BatchSpec(numbers=(number,), wanted=(number,))).cases, run.given, run.dataset)
    seconds, case = _draw(run, case)
    began = time.monotonic()
    num_bytes = _packed(run.info, case, run)
    seconds[WRITTEN] = time.monotonic() - began
    processes = {stage: getattr(config.num_actors, stage) for stage in run.stages}
    processes |= {GATES: config.num_gate_actors, WRITTEN: os.cpu_count() or 1}
    slowest = max(spent / processes[stage] for stage, spent in seconds.items())
    cores = sum(seconds.values()) * config.threads / (os.cpu_count() or 1)
    mean_voxels = sum(int(np.prod(shape)) * times for shape, times in shapes.items()) / shapes.total()
    num_actors = sum(processes[stage] for stage in seconds if stage != WRITTEN)
    return Estimate(
        seconds_per_case=seconds,
        seconds=max(slowest, cores) * len(missing),
        memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 * num_actors,
        disk_bytes=round(num_bytes / case.mask.size * mean_voxels * len(missing)),
    )


def _draw(run: SynthesisRun, case: InFlightCase) -> tuple[dict[str, float], InFlightCase]:
    from medgen3d.synthesis.drawing import advance

    seconds = {}
    for stage in run.stages:
        trained = run.bundles[stage].trained_stage(run.info.device)
        began = time.monotonic()
        (case,) = advance(stage, trained, [case], run.dataset)
        seconds[stage] = time.monotonic() - began
    if run.info.gates:
        train = fingerprints_of(run.gates.train) if run.gates.near_copy and run.gates.train else []
        gates = Gates(run.gates, run.dataset, train)
        began = time.monotonic()
        gates.judge(case)
        seconds[GATES] = time.monotonic() - began
    return seconds, case


def _packed(info: SyntheticSetInfo, case: InFlightCase, run: SynthesisRun) -> int:
    images, labels = encode_pair(info, case.plan.case_id, *run.dataset.as_volumes(case.image, case.mask))
    return sum(len(content) for content in (images | labels).values())
