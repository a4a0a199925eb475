"""A round of a run: some hundred batches through one Ray Data pipeline.

A run is a loop of rounds, and what a round draws follows from what is done. So rejected and lost cases find their way
back to the beginning, which a pipeline alone cannot do; and what Ray Data keeps of every block ends with the round,
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

MAX_BATCHES = 1024
"""Batches of one round: enough that its start does not count, few enough that the driver's memory does not grow."""
_RETRIES = 1  # of a row whose process died, by Ray itself


def run_round(
    run: SynthesisRun, batches: list[BatchSpec], config: SynthesisConfig, counters: Any, train: list[Any]
) -> Iterator[tuple[BatchSpec, list[ManifestRow]]]:
    """Draw batches; each comes back with the rows of its wanted cases, with none if it was not begun, or not at all.

    Args:
        run: What they are part of.
        batches: What to draw.
        config: Actors, threads.
        counters: The actor that counts.
        train: The reference of the training cases' fingerprints in Ray's store, if near copies are looked for.

    Raises:
        DataError: Nothing more can be drawn or written.
    """
    source = [source_row(run.in_flight(key, batch)) for key, batch in enumerate(batches)]
    with _settings():
        rows = ray.data.from_items(source, override_num_blocks=len(source))
        for row in _pipeline(rows, len(batches), run, config, counters, train).iter_rows():
            if row["error"]:
                raise DataError(row["error"])
            found = [ManifestRow.model_validate(each) for each in json.loads(row["rows"])]
            yield batches[row["key"]], found


def _pipeline(
    rows: Any, num_batches: int, run: SynthesisRun, config: SynthesisConfig, counters: Any, train: list[Any]
) -> Any:
    half = config.cpus_per_actor / 2  # on two cores three stages leave room for two steps of this size
    if run.given or run.plan.rows is not None:
        rows = rows.map(take_masks, fn_args=(run.given, run.dataset), num_cpus=half, ray_remote_args_fn=_task_retries)
    for place, stage in enumerate(run.stages):
        rows = rows.map(
            STAGE_ACTORS[stage],
            fn_constructor_args=(stage, run.bundles[stage], config.threads, run.info.device, counters),
            fn_constructor_kwargs={"is_first": place == 0},
            compute=_pool(getattr(config.num_actors, stage), num_batches),
            num_cpus=config.cpus_per_actor,
            num_gpus=config.gpus_per_actor if config.use_gpu else None,
            ray_remote_args_fn=_actor_retries,
        )
    if run.info.gates:
        rows = rows.map(
            GateActor,
            fn_constructor_args=(run.gates, run.dataset, train, config.threads, counters),
            compute=_pool(config.num_gate_actors, num_batches),
            num_cpus=half,
            ray_remote_args_fn=_actor_retries,
        )
    arguments = (run.dataset, run.info, run.folder.location, config.max_redraws, counters)
    return rows.map(write, fn_args=arguments, num_cpus=half, ray_remote_args_fn=_task_retries)


def _actor_retries() -> dict[str, int]:
    return {"max_restarts": -1, "max_task_retries": _RETRIES}  # Ray Data's own default never gives up


def _task_retries() -> dict[str, int]:
    return {"max_retries": _RETRIES}


def _pool(most: int, num_batches: int) -> Any:
    return ray.data.ActorPoolStrategy(size=min(most, num_batches))


@contextmanager
def _settings() -> Iterator[None]:
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False  # the caller shows the progress
    context.max_errored_blocks = -1  # a row whose process died twice is missed by the driver
    with ray.data.DataContext.current(context), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`ray_remote_args_fn`")  # the only way to bound retries in this Ray
        yield
