"""Actors and tasks in Ray's processes: one actor per stage, one for the gates, tasks that read masks and write files.

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
from medgen3d.artifacts.manifest import ManifestRow, SyntheticSetInfo
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.storage import Folder
from medgen3d.artifacts.synthetic_set import cannot_write
from medgen3d.artifacts.training_limits import fingerprints_of
from medgen3d.core.outcome import Outcome
from medgen3d.measures.fingerprints import CaseFingerprint
from medgen3d.synthesis.batch_codec import GATES, WRITTEN, InFlightBatch, Row, from_row, to_row
from medgen3d.synthesis.gates import GateRules, Gates
from medgen3d.synthesis.given_masks import GivenMasks, with_masks
from medgen3d.synthesis.set_writer import write_batch


def take_masks(row: Row, given: GivenMasks | None, dataset: BundleDataset) -> Row:
    """Put masks that are given into cases: those of a whole set, or of single cases of a plan."""
    batch = from_row(row)
    outcome = Outcome.of(with_masks, batch.cases, given, dataset)
    return to_row(replace(batch, cases=outcome.result or batch.cases, error=outcome.sentence))


class StageActor:
    """One process that draws one stage, batch after batch."""

    def __init__(self, stage: str, bundle: Bundle, threads: int, device: str, counters: Any, *, is_first: bool) -> None:
        import torch

        torch.set_num_threads(threads)  # Ray would derive it from the actor's logical CPUs
        self.stage, self.counters, self.is_first = stage, counters, is_first
        self.dataset, self.trained = bundle.info.dataset, Outcome.of(bundle.trained_stage, device)

    def __call__(self, row: Row) -> Row:
        from medgen3d.synthesis.drawing import advance_batch

        batch = from_row(row)
        if self.is_first and ray.get(self.counters.is_stopping.remote()):
            batch = replace(batch, skipped=True)
        if self.trained.error:
            batch = replace(batch, error=batch.error or self.trained.sentence)
        elif not batch.error and not batch.skipped:
            began = time.monotonic()
            batch = advance_batch(self.stage, self.trained.unwrap(), batch, self.dataset)
            self.counters.add.remote(self.stage, len(batch.wanted), time.monotonic() - began)
        return to_row(batch)


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

    def __init__(self, rules: GateRules, dataset: BundleDataset, train: list[Any], threads: int, counters: Any) -> None:
        import torch

        torch.set_num_threads(threads)
        self.counters, self.gates = counters, Outcome.of(_open_gates, rules, dataset, train)

    def __call__(self, row: Row) -> Row:
        batch = from_row(row)
        if self.gates.error:
            return to_row(replace(batch, error=batch.error or self.gates.sentence))
        if batch.error or batch.skipped:
            return row
        began = time.monotonic()
        gates = self.gates.unwrap()
        judged = [gates.judge(case) for case in batch.cases]
        self.counters.add.remote(GATES, len(batch.wanted), time.monotonic() - began)
        return to_row(replace(batch, cases=judged))


def _open_gates(rules: GateRules, dataset: BundleDataset, train: list[Any]) -> Gates:
    return Gates(rules, dataset, ray.get(train[0]).unwrap() if train else [])


def describe_training_cases(prepared: PreparedSet) -> Outcome[list[CaseFingerprint]]:
    """The task: what near copies are looked for among."""
    return Outcome.of(fingerprints_of, prepared)


def write(
    row: Row, dataset: BundleDataset, info: SyntheticSetInfo, location: str, max_redraws: int, counters: Any
) -> Row:
    """Write what is accepted; the row that leaves says what became of every wanted case."""
    batch = from_row(row)
    if batch.error or batch.skipped:
        return _result_row(batch)
    began = time.monotonic()
    outcome = Outcome.of(_write, batch, dataset, info, location, max_redraws)
    if outcome.error:
        return _result_row(replace(batch, error=outcome.sentence))
    counters.add.remote(WRITTEN, len(batch.wanted), time.monotonic() - began)
    return _result_row(batch) | {"rows": json.dumps([each.model_dump() for each in outcome.unwrap()])}


def _write(
    batch: InFlightBatch, dataset: BundleDataset, info: SyntheticSetInfo, location: str, max_redraws: int
) -> list[ManifestRow]:
    try:
        return write_batch(batch, dataset, info, location, max_redraws)
    except OSError as error:
        raise cannot_write(Folder.of(location), error) from error


def _result_row(batch: InFlightBatch) -> Row:
    return {"key": batch.key, "error": batch.error, "skipped": batch.skipped, "rows": "[]"}


class StageCounters:
    """The actor that counts what every stage has done, and passes on to the stages that the run is to end."""

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
