"""Bulk synthesis on Ray Data: one row per batch of cases, one pool of actors per stage, and tasks that write the files.

A row is a whole batch, so Ray can move rows as it likes without changing who is drawn beside whom. Results are the same
for any number of actors, in any order, and after any interruption.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import ray

from medgen3d.artifacts.bundle import Bundle, BundleDataset
from medgen3d.artifacts.manifest import SyntheticSetInfo
from medgen3d.artifacts.synthetic_set import merge_parts, open_for_writing
from medgen3d.config.experiment import SynthesisConfig
from medgen3d.core.errors import DataError, Medgen3dError
from medgen3d.synthesis.job import Job, Options, SynthesisSummary, make_job, summarise
from medgen3d.synthesis.masks import GivenMasks
from medgen3d.synthesis.output import write_batch
from medgen3d.synthesis.work import Row, from_row, source_row, to_row

Progress = Callable[[Mapping[str, int], int], None]
WRITTEN = "written"
_POLL_S = 0.5


def _silent(done: Mapping[str, int], total: int) -> None:
    """Report nothing."""


def synthesize(
    bundles: Mapping[str, Path],
    pipeline_name: str,
    pipeline_version: int,
    count: int,
    seed: int,
    out: Path,
    config: SynthesisConfig,
    progress: Progress = _silent,
    *,
    options: Options = MappingProxyType({}),
    masks: Path | None = None,
    split: str = "test",
    dry_run: bool = False,
) -> SynthesisSummary:
    """Draw pairs 0..count - 1 into a synthetic set, or the rest of them if some are there. Needs a running Ray.

    Args:
        bundles: Folder of the bundle of each stage; every machine of the cluster sees it.
        pipeline_name: Name of the pipeline, for the manifest.
        pipeline_version: Its version.
        count: Number of cases that the set shall have.
        seed: The run's seed.
        out: Folder of the synthetic set, seen by every machine. Cases in it that are whole are kept.
        config: Batch width, actors, threads; `use_gpu: null` means no GPU here.
        progress: Called with {stage or WRITTEN: cases done by now} and the number of cases to draw.
        options: Sampling options in place of the bundles' own, as `medgen3d.config.load.named_options` finds them.
        masks: A prepared set, a synthetic set or a Decathlon folder, seen by every machine: images are drawn for its
            masks, and there are at most as many cases. None: masks are drawn.
        split: Which cases of a prepared set `masks` means.
        dry_run: Only say what would be drawn; needs no Ray and writes nothing.

    Raises:
        ConfigError: `count` is not positive, or an option cannot be chosen at synthesis.
        DataError: A bundle or the given masks cannot be used; or `out` holds something else, the work of
            another pipeline or seed, or cannot be written.
    """
    job = make_job(
        bundles, pipeline_name, pipeline_version, count, seed, out, config, options=options, masks=masks, split=split
    )
    if not dry_run:
        open_for_writing(job.out, job.info)
        if job.wanted:
            _draw(job, config, progress)
        merge_parts(job.out)
    return summarise(job, is_drawn=not dry_run)


def _draw(job: Job, config: SynthesisConfig, progress: Progress) -> None:
    source = [source_row(batch, numbers, job.plans_of(batch)) for batch, numbers in job.wanted.items()]
    tally = ray.remote(num_cpus=0)(_Tally).remote(job.stages)
    with _shown(tally, progress, job.num_missing), _quiet_data():
        rows = ray.data.from_items(source, override_num_blocks=len(source))
        if job.given:
            rows = rows.map(_take_masks, fn_args=(job.given,), num_cpus=config.cpus_per_actor)
        for stage in job.stages:
            rows = rows.map(
                _StageActor,
                fn_constructor_args=(stage, job.bundles[stage], config.threads, job.info.device, tally),
                compute=ray.data.ActorPoolStrategy(size=min(getattr(config.num_actors, stage), len(source))),
                num_cpus=config.cpus_per_actor,
                num_gpus=config.gpus_per_actor if config.use_gpu else None,
            )
        dataset = job.bundles["mask_generator"].info.dataset
        rows = rows.map(_write, fn_args=(dataset, job.info, job.out, tally), num_cpus=config.cpus_per_actor)
        for row in rows.iter_rows():
            if row["error"]:
                raise DataError(row["error"])


def _take_masks(row: Row, given: GivenMasks) -> Row:
    work = from_row(row)
    try:
        cases = [replace(case, mask=given.read(given.case_ids[case.plan.number])) for case in work.cases]
    except Medgen3dError as error:  # as a value: Ray would wrap it into errors of its own
        return to_row(replace(work, error=str(error)))
    return to_row(replace(work, cases=cases))


class _StageActor:
    """One process that draws one stage, batch after batch."""

    def __init__(self, stage: str, bundle: Bundle, threads: int, device: str, tally: Any) -> None:
        import torch

        torch.set_num_threads(threads)  # Ray would derive it from the actor's logical CPUs
        self.stage, self.tally = stage, tally
        self.trained, self.error = None, ""
        try:
            self.trained = bundle.trained_stage(device)
        except Medgen3dError as error:  # as a value: Ray would wrap it into errors of its own
            self.error = str(error)

    def __call__(self, row: Row) -> Row:
        from medgen3d.synthesis.worker import advance

        work = from_row(row)
        if self.trained is None:
            work = replace(work, error=work.error or self.error)
        elif not work.error:
            work = replace(work, cases=advance(self.stage, self.trained, work.cases))
            self.tally.add.remote(self.stage, len(work.wanted))
        return to_row(work)


def _write(row: Row, dataset: BundleDataset, info: SyntheticSetInfo, out: Path, tally: Any) -> Row:
    work = from_row(row)
    if work.error:
        return {"error": work.error}
    try:
        write_batch(work, dataset, info, out)
    except OSError as error:
        return {"error": f"{out} cannot be written ({error.strerror}). Make room, then run the same command again."}
    tally.add.remote(WRITTEN, len(work.wanted))
    return {"error": ""}


class _Tally:
    """Counts, for the progress display, how many wanted cases each stage has done."""

    def __init__(self, stages: tuple[str, ...]) -> None:
        self.counts = Counter(dict.fromkeys((*stages, WRITTEN), 0))

    def add(self, stage: str, num_cases: int) -> None:
        self.counts[stage] += num_cases

    def read(self) -> dict[str, int]:
        return dict(self.counts)


@contextmanager
def _shown(tally: Any, progress: Progress, total: int) -> Iterator[None]:
    """Report progress from a thread of its own while the rows are waited for."""
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(_POLL_S):
            progress(ray.get(tally.read.remote()), total)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()
    progress(ray.get(tally.read.remote()), total)


@contextmanager
def _quiet_data() -> Iterator[None]:
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False  # the caller shows the progress
    with ray.data.DataContext.current(context):
        yield
