"""A leg of a run: some hundred batches through one Ray Data pipeline.

A run is a loop of legs, and what a leg draws follows from what is done. So rejected and lost cases find their way
back to the beginning, which a pipeline alone cannot do; and what Ray Data keeps of every block ends with the leg,
however long the run is.
"""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from medgen3d.artifacts.manifest import ManifestRow
from medgen3d.config.experiment import SynthesisConfig
from medgen3d.core.errors import DataError
from medgen3d.synthesis.batch_codec import source_row
from medgen3d.synthesis.case_ledger import BatchSpec
from medgen3d.synthesis.on_ray.actors import STAGE_ACTORS, GateActor, take_masks, write
from medgen3d.synthesis.run import SynthesisRun

MOST_ITEMS = 1024
"""Batches of one leg: enough that its start does not count, few enough that the driver's memory does not grow."""
_RETRIES = 1  # of a row whose process died, by Ray itself


def run_round(
    job: SynthesisRun, items: list[BatchSpec], config: SynthesisConfig, tally: Any, train: list[Any]
) -> Iterator[tuple[BatchSpec, list[ManifestRow]]]:
    """Draw items; each comes back with what became of its wanted cases, with none if it was not begun, or not at all.

    Args:
        job: What they are part of.
        items: What to draw.
        config: Actors, threads.
        tally: Counts.
        train: The reference of the training cases' fingerprints in Ray's store, if near copies are looked for.

    Raises:
        DataError: Nothing more can be drawn or written.
    """
    source = [source_row(job.work_of(key, item)) for key, item in enumerate(items)]
    with _settings():
        rows = ray.data.from_items(source, override_num_blocks=len(source))
        for row in _pipeline(rows, len(items), job, config, tally, train).iter_rows():
            if row["error"]:
                raise DataError(row["error"])
            found = [ManifestRow.model_validate(each) for each in json.loads(row["rows"])]
            yield items[row["key"]], found


def _pipeline(
    rows: Any, num_items: int, job: SynthesisRun, config: SynthesisConfig, tally: Any, train: list[Any]
) -> Any:
    half = config.cpus_per_actor / 2  # three stages leave room for two such beside them on two cores
    if job.given or job.plan.rows is not None:
        rows = rows.map(take_masks, fn_args=(job.given, job.dataset), num_cpus=half, ray_remote_args_fn=_task_retries)
    for place, stage in enumerate(job.stages):
        rows = rows.map(
            STAGE_ACTORS[stage],
            fn_constructor_args=(stage, job.bundles[stage], config.threads, job.info.device, tally),
            fn_constructor_kwargs={"is_first": place == 0},
            compute=_pool(getattr(config.num_actors, stage), num_items),
            num_cpus=config.cpus_per_actor,
            num_gpus=config.gpus_per_actor if config.use_gpu else None,
            ray_remote_args_fn=_actor_retries,
        )
    if job.info.gates:
        rows = rows.map(
            GateActor,
            fn_constructor_args=(job.gates, job.dataset, train, config.threads, tally),
            compute=_pool(config.num_gate_actors, num_items),
            num_cpus=half,
            ray_remote_args_fn=_actor_retries,
        )
    told = (job.dataset, job.info, job.folder.location, config.max_redraws, tally)
    return rows.map(write, fn_args=told, num_cpus=half, ray_remote_args_fn=_task_retries)


def _actor_retries() -> dict[str, int]:
    return {"max_restarts": -1, "max_task_retries": _RETRIES}  # Ray Data's own default never gives up


def _task_retries() -> dict[str, int]:
    return {"max_retries": _RETRIES}


def _pool(most: int, num_items: int) -> Any:
    return ray.data.ActorPoolStrategy(size=min(most, num_items))


@contextmanager
def _settings() -> Iterator[None]:
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False  # the caller shows the progress
    context.max_errored_blocks = -1  # a row whose process died twice is missed by the driver
    with ray.data.DataContext.current(context), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`ray_remote_args_fn`")  # the only way to bound retries in this Ray
        yield
