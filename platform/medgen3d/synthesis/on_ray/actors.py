"""What runs in Ray's processes: an actor per stage, the gates, and the tasks that read masks and write files.

Everything that can go wrong with a case becomes a value of its row. What is left are deaths of processes, after which
Ray Data drops the row, and the driver notices that it did not come back.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import ray

from medgen3d.artifacts.bundle import Bundle, BundleDataset
from medgen3d.artifacts.manifest import SyntheticSetInfo
from medgen3d.artifacts.storage import Folder
from medgen3d.artifacts.synthetic_set import cannot_write
from medgen3d.core.errors import Medgen3dError
from medgen3d.synthesis.batch_codec import GATES, WRITTEN, InFlightBatch, Row, from_row, to_row
from medgen3d.synthesis.gates import GateRules, Gates
from medgen3d.synthesis.given_masks import GivenMasks, with_masks
from medgen3d.synthesis.set_writer import write_batch


def take_masks(row: Row, given: GivenMasks | None, dataset: BundleDataset) -> Row:
    """Put masks that are given into cases: those of a whole set, or of single cases of a plan."""
    work = from_row(row)
    try:
        return to_row(replace(work, cases=with_masks(work.cases, given, dataset)))
    except Medgen3dError as error:  # as a value: Ray would wrap it into errors of its own
        return to_row(replace(work, error=str(error)))


class StageActor:
    """One process that draws one stage, batch after batch."""

    def __init__(self, stage: str, bundle: Bundle, threads: int, device: str, tally: Any, *, is_first: bool) -> None:
        import torch

        torch.set_num_threads(threads)  # Ray would derive it from the actor's logical CPUs
        self.stage, self.tally, self.is_first = stage, tally, is_first
        self.dataset, self.trained, self.error = bundle.info.dataset, None, ""
        try:
            self.trained = bundle.trained_stage(device)
        except Medgen3dError as error:  # as a value: Ray would wrap it into errors of its own
            self.error = str(error)

    def __call__(self, row: Row) -> Row:
        from medgen3d.synthesis.drawing import advance_batch

        work = from_row(row)
        if self.is_first and ray.get(self.tally.is_stopping.remote()):
            work = replace(work, skipped=True)
        if self.trained is None:
            work = replace(work, error=work.error or self.error)
        elif not work.error and not work.skipped:
            began = time.monotonic()
            work = advance_batch(self.stage, self.trained, work, self.dataset)
            self.tally.add.remote(self.stage, len(work.wanted), time.monotonic() - began)
        return to_row(work)


class MaskGeneratorActor(StageActor):
    """So that Ray's own tools name the stage."""


class ImageSequenceGeneratorActor(StageActor):
    """So that Ray's own tools name the stage."""


class RefinerActor(StageActor):
    """So that Ray's own tools name the stage."""


STAGE_ACTORS: dict[str, type[StageActor]] = {
    "mask_generator": MaskGeneratorActor,
    "image_sequence_generator": ImageSequenceGeneratorActor,
    "refiner": RefinerActor,
}


class GateActor:
    """One process that checks drawn cases."""

    def __init__(self, rules: GateRules, dataset: BundleDataset, train: list[Any], threads: int, tally: Any) -> None:
        import torch

        torch.set_num_threads(threads)
        self.tally, self.gates, self.error = tally, None, ""
        try:
            self.gates = Gates(rules, dataset, ray.get(train[0]) if train else [])
        except Medgen3dError as error:
            self.error = str(error)

    def __call__(self, row: Row) -> Row:
        work = from_row(row)
        if self.gates is None:
            return to_row(replace(work, error=work.error or self.error))
        if work.error or work.skipped:
            return row
        began = time.monotonic()
        judged = [self.gates.judge(case) for case in work.cases]
        self.tally.add.remote(GATES, len(work.wanted), time.monotonic() - began)
        return to_row(replace(work, cases=judged))


def write(row: Row, dataset: BundleDataset, info: SyntheticSetInfo, location: str, max_redraws: int, tally: Any) -> Row:
    """Write what is accepted; the row that leaves says what became of every wanted case."""
    work = from_row(row)
    if work.error or work.skipped:
        return _told(work)
    began = time.monotonic()
    try:
        rows = write_batch(work, dataset, info, location, max_redraws)
    except OSError as error:
        return _told(replace(work, error=str(cannot_write(Folder.of(location), error))))
    tally.add.remote(WRITTEN, len(work.wanted), time.monotonic() - began)
    return _told(work) | {"rows": json.dumps([each.model_dump() for each in rows])}


def _told(work: InFlightBatch) -> Row:
    return {"key": work.key, "error": work.error, "skipped": work.skipped, "rows": "[]"}


class StageCounters:
    """Counts what every stage has done, for whoever watches, and passes on that the run is to end."""

    def __init__(self, stages: Iterable[str]) -> None:
        from ray.util.metrics import Counter as Metric
        from ray.util.metrics import Gauge

        self.counts = Counter(dict.fromkeys(stages, 0))
        self.busy_s = dict.fromkeys(stages, 0.0)
        self.stopping = False
        self.drawn = Metric("medgen3d_synthesis_stage_cases", "Cases that a stage has done", ("stage",))
        self.worked = Metric("medgen3d_synthesis_stage_seconds", "Time that a stage's processes worked", ("stage",))
        self.cases = Gauge("medgen3d_synthesis_cases", "Cases of the set by what became of them", ("outcome",))
        self.rejected = Gauge("medgen3d_synthesis_rejections", "Draws that a gate rejected", ("reason",))

    def add(self, stage: str, num_cases: int, seconds: float) -> None:
        self.counts[stage] += num_cases
        self.busy_s[stage] += seconds
        if num_cases:
            self.drawn.inc(num_cases, {"stage": stage})
        if seconds > 0:
            self.worked.inc(seconds, {"stage": stage})

    def publish(self, cases: dict[str, int], rejections: dict[str, int]) -> None:
        for outcome, number in cases.items():
            self.cases.set(number, {"outcome": outcome})
        for reason, number in rejections.items():
            self.rejected.set(number, {"reason": reason})

    def read(self) -> tuple[dict[str, int], dict[str, float]]:
        return dict(self.counts), self.busy_s

    def stop(self) -> None:
        self.stopping = True

    def is_stopping(self) -> bool:
        return self.stopping
