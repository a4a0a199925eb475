"""Bulk synthesis on Ray Data: one row per batch of cases, one pool of actors per stage, and tasks that write the files.

A row is a whole batch, so Ray can move rows as it likes without changing who is drawn beside whom. Results are the same
for any number of actors, in any order, and after any interruption.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from medgen3d.artifacts.dataset_card import write_card
from medgen3d.artifacts.storage import Location
from medgen3d.artifacts.synthetic_set import cannot_write, merge_parts, open_for_writing, write_part
from medgen3d.artifacts.training_limits import fingerprints_of
from medgen3d.config.experiment import SynthesisConfig
from medgen3d.core.errors import DataError
from medgen3d.synthesis.batch_codec import GATES, WRITTEN
from medgen3d.synthesis.calibrate import calibrate
from medgen3d.synthesis.case_ledger import DONE, MAX_LOSSES, BatchSpec
from medgen3d.synthesis.on_ray.actors import StageCounters
from medgen3d.synthesis.on_ray.progress import Progress, RunProgress, ends_on_request
from medgen3d.synthesis.on_ray.round import MOST_ITEMS, run_round
from medgen3d.synthesis.plan import write_plan
from medgen3d.synthesis.run import SynthesisRun, open_run
from medgen3d.synthesis.run_options import RunOptions
from medgen3d.synthesis.set_writer import given_up, part_of
from medgen3d.synthesis.summary import SynthesisSummary, summarise

__all__ = ["WRITTEN", "synthesize"]
_MAX_IDLE_LEGS = 3
_MERGE_AFTER = 256  # batches; so long rows of the manifest lie in parts


def _silent(done: Mapping[str, int], total: int, notes: Mapping[str, str]) -> None:
    """Report nothing."""


def synthesize(
    bundles: Mapping[str, Path],
    pipeline_name: str,
    pipeline_version: int,
    count: int | None,
    seed: int,
    out: Location,
    config: SynthesisConfig,
    progress: Progress = _silent,
    order: RunOptions | None = None,
    *,
    dry_run: bool = False,
) -> SynthesisSummary:
    """Draw the pairs of a plan into a synthetic set, or the rest of them if some are there. Needs a running Ray.

    Args:
        bundles: Folder of the bundle of each stage; every machine of the cluster sees it.
        pipeline_name: Name of the pipeline, for the manifest.
        pipeline_version: Its version.
        count: Number of cases that the set shall have; None: as the order's plan file says.
        seed: The run's seed.
        out: Folder of the synthetic set, seen by every machine. Cases in it that are whole are kept.
        config: Batch width, actors, threads; `use_gpu: null` means no GPU here.
        progress: Called with {stage or WRITTEN: cases done by now}, the number of cases to draw, and {stage: a note}.
        order: Plan, masks, gates and whatever else was asked for.
        dry_run: Only say what would be drawn, and measure one case; needs no Ray and writes nothing.

    Raises:
        ConfigError: `count` or the plan is not valid, or an option cannot be chosen at synthesis.
        DataError: A bundle or the given masks cannot be used; or `out` holds something else, the work of
            another pipeline, seed, plan or other gates, or cannot be written.
        KeyboardInterrupt: The run was asked to end; what was begun is finished, and the set can be continued.
    """
    order = order or RunOptions()
    job = open_run(bundles, pipeline_name, pipeline_version, count, seed, out, config, order)
    num_kept = job.standing.count(DONE)
    if dry_run:
        summary = summarise(job, num_kept)
        estimate = calibrate(job, config, summary.shapes)
        return replace(summary, num_drawn=len(job.standing.missing), estimate=estimate)
    for bundle in job.bundles.values():
        bundle.trained_stage()  # a version that cannot be used is refused before any work
    open_for_writing(job.folder.location, job.info)
    try:
        write_plan(job.folder, job.plan)
        merge_parts(job.folder.location, finished=False)  # so that no part is written over another one
        if len(job.standing.missing):
            _draw(job, config, progress, order.command)
        merge_parts(job.folder.location)
        write_card(job.folder, order.licence, order.idle_gates)
    except OSError as error:
        raise cannot_write(job.folder, error) from error
    return summarise(job, num_kept)


def _draw(job: SynthesisRun, config: SynthesisConfig, progress: Progress, command: str) -> None:
    processes = {stage: getattr(config.num_actors, stage) for stage in job.stages}
    processes |= {GATES: config.num_gate_actors} if job.info.gates else {}
    processes[WRITTEN] = 1
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)  # other nodes may die
    tally = ray.remote(num_cpus=0, scheduling_strategy=here)(StageCounters).remote(list(processes))
    watch = RunProgress(job, tally, processes, progress, command)
    with watch.running(), ends_on_request(watch.asked_to_end):
        train, idle_legs = _training_cases(job), 0
        while items := job.standing.next_items(MOST_ITEMS):
            if watch.asked_to_end.is_set():
                raise KeyboardInterrupt
            missed = _take_leg(job, items, config, tally, train)
            if watch.asked_to_end.is_set():
                raise KeyboardInterrupt
            idle_legs = idle_legs + 1 if len(missed) == len(items) > 1 else 0
            if idle_legs == _MAX_IDLE_LEGS:
                raise _nothing_came_back(len(items))
            _miss(job, missed)


def _take_leg(
    job: SynthesisRun, items: list[BatchSpec], config: SynthesisConfig, tally: Any, train: list[Any]
) -> list[BatchSpec]:
    """Draw items and note what became of them; those that did not come back."""
    missed = dict.fromkeys(items)
    try:
        for place, (item, rows) in enumerate(run_round(job, items, config, tally, train), start=1):
            missed.pop(item, None)
            job.standing.take(rows)
            if place % _MERGE_AFTER == 0:
                merge_parts(job.folder.location, finished=False)
    finally:
        merge_parts(job.folder.location, finished=False)
    return list(missed)


def _nothing_came_back(num_items: int) -> DataError:
    return DataError(
        f"none of {num_items} batches came back, {_MAX_IDLE_LEGS} times in a row: every process that began one died. "
        "Ray's log names the reason, such as memory or another version of medgen3d on a machine; run the same command "
        "again afterwards."
    )


def _miss(job: SynthesisRun, missed: list[BatchSpec]) -> None:
    """Note items that were lost; those that were lost too often are given up."""
    for item in missed:
        if job.standing.lose(item):
            plan = job.plan.case(item.numbers[0]).model_copy(update={"redraw": item.redraw})
            message = f"case {plan.case_id}: the processes that drew it alone died {MAX_LOSSES} times; see Ray's log"
            row = given_up(plan, message, job.standing.rejections.get(plan.number, {}))
            write_part(job.folder.location, job.info, part_of([plan]), [row])
            job.standing.take([row])


def _training_cases(job: SynthesisRun) -> list[Any]:
    """The fingerprints of the training cases in Ray's store."""
    if not job.gates.near_copy:
        return []
    describe = ray.remote(num_cpus=0)(fingerprints_of)
    return [describe.remote(job.gates.train)]
