"""Bulk synthesis on Ray Data: one row per batch of cases, one pool of actors per stage, and tasks that write the files.

A row is a whole batch, so Ray can move rows as it likes without changing which cases are drawn together. Results are
the same for any number of actors, in any order, and after any interruption.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from medgen3d.artifacts.authenticity import read_signing_key, sign_manifest
from medgen3d.artifacts.case_status import CaseStatus
from medgen3d.artifacts.dataset_card import write_card
from medgen3d.artifacts.pipeline import Pipeline
from medgen3d.artifacts.storage import Location
from medgen3d.artifacts.synthetic_set import cannot_write, merge_parts, open_for_writing, write_part
from medgen3d.config.experiment import SynthesisConfig
from medgen3d.core.errors import DataError
from medgen3d.synthesis.batch_codec import GATES, WRITTEN
from medgen3d.synthesis.calibrate import calibrate
from medgen3d.synthesis.case_ledger import MAX_LOSSES, BatchSpec
from medgen3d.synthesis.on_ray.actors import StageCounters, describe_training_cases
from medgen3d.synthesis.on_ray.progress import Progress, RunProgress, ends_on_request
from medgen3d.synthesis.on_ray.round import MAX_BATCHES, run_round
from medgen3d.synthesis.plan import write_plan
from medgen3d.synthesis.run import SynthesisRun, open_run
from medgen3d.synthesis.run_options import RunOptions
from medgen3d.synthesis.set_writer import failed_row, part_number
from medgen3d.synthesis.summary import SynthesisSummary, summarise

__all__ = ["WRITTEN", "synthesize"]
_MAX_IDLE_ROUNDS = 3
_MERGE_AFTER = 256  # batches: the most parts of the manifest that lie about


def _silent(done: Mapping[str, int], total: int, notes: Mapping[str, str]) -> None:
    """Report nothing."""


def synthesize(
    pipeline: Pipeline,
    count: int | None,
    seed: int,
    out: Location,
    config: SynthesisConfig,
    progress: Progress = _silent,
    options: RunOptions | None = None,
    *,
    dry_run: bool = False,
) -> SynthesisSummary:
    """Draw the pairs of a plan into a synthetic set, or the rest of them if some are there. Needs a running Ray.

    Args:
        pipeline: What draws; every machine of the cluster sees the folders of its bundles.
        count: Number of cases that the set shall have; None: as the plan file of the options says.
        seed: The run's seed.
        out: Folder of the synthetic set, seen by every machine. Cases in it that are whole are kept.
        config: Batch width, actors, threads; `use_gpu: null` means no GPU here.
        progress: Called with {stage or WRITTEN: cases done by now}, the number of cases to draw, and {stage: a note}.
        options: Plan, masks, gates and whatever else was chosen.
        dry_run: Only say what would be drawn, and measure one case; needs no Ray and writes nothing.

    Raises:
        ConfigError: `count` or the plan is not valid, or an option cannot be chosen at synthesis.
        DataError: A bundle or the given masks cannot be used; or `out` holds something else, the work of
            another pipeline, seed, plan or other gates, or cannot be written.
        KeyboardInterrupt: The run was asked to end; what was begun is finished, and the set can be continued.
    """
    options = options or RunOptions()
    key = read_signing_key(config.signing_key) if config.signing_key else None  # refused before any work
    run = open_run(pipeline, count, seed, out, config, options)
    num_kept = run.ledger.count(CaseStatus.DONE)
    if dry_run:
        summary = summarise(run, num_kept)
        estimate = calibrate(run, config, summary.shapes)
        return replace(summary, num_drawn=len(run.ledger.missing), estimate=estimate)
    for bundle in run.bundles.values():
        bundle.trained_stage()  # a version that cannot be used is refused before any work
    open_for_writing(run.folder.location, run.info)
    try:
        write_plan(run.folder, run.plan)
        merge_parts(run.folder.location, finished=False)  # so that no part is written over another one
        if len(run.ledger.missing):
            _draw(run, config, progress, options.command)
        merge_parts(run.folder.location)
        write_card(run.folder, options.licence, options.idle_gates)
        if key:
            sign_manifest(run.folder, key)
    except OSError as error:
        raise cannot_write(run.folder, error) from error
    return summarise(run, num_kept)


def _draw(run: SynthesisRun, config: SynthesisConfig, progress: Progress, command: str) -> None:
    processes = {stage: getattr(config.num_actors, stage) for stage in run.stages}
    processes |= {GATES: config.num_gate_actors} if run.info.gates else {}
    processes[WRITTEN] = 1
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)  # other nodes may die
    counters = ray.remote(num_cpus=0, scheduling_strategy=here)(StageCounters).remote(list(processes))
    reports = RunProgress(run, counters, processes, progress, command)
    with reports.running(), ends_on_request(reports.asked_to_end):
        train, idle_rounds = _training_cases(run), 0
        while batches := run.ledger.next_batches(MAX_BATCHES):
            if reports.asked_to_end.is_set():
                raise KeyboardInterrupt
            lost = _draw_round(run, batches, config, counters, train)
            if reports.asked_to_end.is_set():
                raise KeyboardInterrupt
            idle_rounds = idle_rounds + 1 if len(lost) == len(batches) > 1 else 0
            if idle_rounds == _MAX_IDLE_ROUNDS:
                raise _nothing_came_back(len(batches))
            _record_losses(run, lost)


def _draw_round(
    run: SynthesisRun, batches: list[BatchSpec], config: SynthesisConfig, counters: Any, train: list[Any]
) -> list[BatchSpec]:
    """Draw batches and record what became of them; those that did not come back."""
    lost = dict.fromkeys(batches)
    try:
        for place, (batch, rows) in enumerate(run_round(run, batches, config, counters, train), start=1):
            lost.pop(batch, None)
            run.ledger.record(rows)
            if place % _MERGE_AFTER == 0:
                merge_parts(run.folder.location, finished=False)
    finally:
        merge_parts(run.folder.location, finished=False)
    return list(lost)


def _nothing_came_back(num_batches: int) -> DataError:
    return DataError(
        f"none of {num_batches} batches came back, {_MAX_IDLE_ROUNDS} times in a row: every process that began one "
        "died. Ray's log names the reason, such as memory or another version of medgen3d on a machine; run the same "
        "command again afterwards."
    )


def _record_losses(run: SynthesisRun, lost: list[BatchSpec]) -> None:
    """Record batches that were lost; a case whose own batch was lost too often is given up."""
    for batch in lost:
        if run.ledger.record_loss(batch):
            plan = run.plan.case(batch.numbers[0]).model_copy(update={"redraw": batch.redraw})
            message = f"case {plan.case_id}: the processes that drew it alone died {MAX_LOSSES} times; see Ray's log"
            row = failed_row(plan, message, run.ledger.rejections.get(plan.number, {}))
            write_part(run.folder.location, run.info, part_number([plan]), [row])
            run.ledger.record([row])


def _training_cases(run: SynthesisRun) -> list[Any]:
    """The fingerprints of the training cases in Ray's store."""
    if not run.gates.near_copy:
        return []
    describe = ray.remote(num_cpus=0)(describe_training_cases)
    return [describe.remote(run.gates.train)]
