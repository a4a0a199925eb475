"""A run of bulk synthesis: what identifies its results, what of it is there already, and what it came to."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from medgen3d.artifacts.bundle import WEIGHTS, Bundle, read_bundle
from medgen3d.artifacts.manifest import SyntheticSetInfo
from medgen3d.artifacts.planned_case import PlannedCase, Shape, plan_case
from medgen3d.artifacts.provenance import config_hash
from medgen3d.artifacts.synthetic_set import damages, existing_rows, read_manifest
from medgen3d.config.experiment import CHAIN, SynthesisConfig
from medgen3d.core.errors import ConfigError, DataError
from medgen3d.core.hashing import sha256_of
from medgen3d.synthesis.masks import GivenMasks, open_masks
from medgen3d.synthesis.plan import numbers_in, wanted_by_batch
from medgen3d.synthesis.sampling import options_changed, with_options

Options = Mapping[str, Mapping[str, Any]]
"""{stage: {option: value}}: what a user named of the stages' options."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What is to be drawn.

    bundles: By stage, with the sampling options that are used.
    stages: Those that draw, in their order: masks may be given, and refinement left out.
    given: The masks that are given; None if they are drawn.
    wanted: {batch: numbers of its cases that are not there yet}.
    """

    bundles: dict[str, Bundle]
    stages: tuple[str, ...]
    given: GivenMasks | None
    info: SyntheticSetInfo
    out: Path
    count: int
    wanted: dict[int, list[int]]

    @property
    def num_missing(self) -> int:
        return sum(len(numbers) for numbers in self.wanted.values())

    def plan(self, number: int) -> PlannedCase:
        planned = plan_case(self.info.seed, number, self.bundles["mask_generator"].info.dataset.shapes)
        return planned.model_copy(update={"shape": self.given.shapes[number]}) if self.given else planned

    def plans_of(self, batch: int) -> list[PlannedCase]:
        """All cases of a batch, wanted or not; masks that are given may end within it."""
        numbers = numbers_in(batch, self.info.batch)
        return [self.plan(number) for number in numbers if not self.given or number < len(self.given.shapes)]


@dataclass(frozen=True, kw_only=True, slots=True)
class SynthesisSummary:
    """What a run did, or in a dry run would do.

    num_kept: Cases that were there already, whole and of the same identity.
    num_drawn: Cases drawn now.
    failures: Case id -> sentence, of the cases that could not be drawn.
    shapes: How many of all the cases have each (D, h, w).
    max_bytes: Size of all the cases' files before compression.
    """

    out: Path
    num_kept: int
    num_drawn: int
    failures: dict[str, str]
    shapes: Counter[Shape]
    max_bytes: int


def make_job(
    bundles: Mapping[str, Path],
    name: str,
    version: int,
    count: int,
    seed: int,
    out: Path,
    config: SynthesisConfig,
    *,
    options: Options = MappingProxyType({}),
    masks: Path | None = None,
    split: str = "test",
) -> Job:
    """Find out what is missing; nothing is written. The arguments are those of `medgen3d.synthesis.on_ray.synthesize`.

    Raises:
        ConfigError: `count` is not positive, or an option cannot be chosen at synthesis.
        DataError: A bundle or the given masks cannot be used, or `out` holds something else or the work of another
            pipeline or seed.
    """
    if count < 1:
        raise ConfigError(f"the number of cases must be at least 1, got {count}")
    out = Path(out).absolute()  # workers run in folders of their own
    trained = {stage: read_bundle(Path(bundles[stage]).absolute()) for stage in CHAIN}
    used = {stage: with_options(bundle, options.get(stage, {})) for stage, bundle in trained.items()}
    given = open_masks(masks, trained["mask_generator"].info.dataset, split) if masks else None
    stages = tuple(stage for stage in CHAIN if _draws(stage, config, given))
    sampling = {stage: options_changed(trained[stage], used[stage]) for stage in stages}
    info = _identity(used, stages, name, version, seed, config).model_copy(
        update={
            "sampling": {stage: changed for stage, changed in sampling.items() if changed},
            "refined": config.refine,
            "masks_digest": given.digest if given else None,
        }
    )
    count = min(count, len(given.case_ids)) if given else count
    rows = existing_rows(out, info).values()
    kept = {row.number for row in rows if row.status == "done" and not any(damages(out, row))}
    wanted = wanted_by_batch(count, config.batch, kept)
    return Job(bundles=used, stages=stages, given=given, info=info, out=out, count=count, wanted=wanted)


def _draws(stage: str, config: SynthesisConfig, given: GivenMasks | None) -> bool:
    return {"mask_generator": given is None, "refiner": config.refine}.get(stage, True)


def summarise(job: Job, *, is_drawn: bool) -> SynthesisSummary:
    """What the job came to, or what it will come to.

    Raises:
        DataError: Cases that were drawn are not in the manifest that this machine sees.
    """
    shapes = Counter(job.plan(number).shape for number in range(job.count))
    bytes_per_voxel = np.dtype(job.info.image_dtype).itemsize + np.dtype(job.info.label_table.dtype).itemsize
    failures = _failures(job) if is_drawn else {}
    return SynthesisSummary(
        out=job.out,
        num_kept=job.count - job.num_missing,
        num_drawn=job.num_missing - len(failures),
        failures=failures,
        shapes=shapes,
        max_bytes=bytes_per_voxel * sum(int(np.prod(shape)) * number for shape, number in shapes.items()),
    )


def _failures(job: Job) -> dict[str, str]:
    _, rows = read_manifest(job.out)
    wanted = {job.plan(number).case_id for numbers in job.wanted.values() for number in numbers}
    if wanted - rows.keys():
        raise DataError(
            f"some files of {job.out} were written on other machines. Give a folder on storage that every machine of "
            "the cluster sees."
        )
    return {case_id: rows[case_id].message for case_id in sorted(wanted) if rows[case_id].status == "failed"}


def _identity(
    used: Mapping[str, Bundle], stages: tuple[str, ...], name: str, version: int, seed: int, config: SynthesisConfig
) -> SyntheticSetInfo:
    dataset = used["mask_generator"].info.dataset
    return SyntheticSetInfo(
        dataset_name=dataset.name,
        dataset_digest=dataset.digest,
        modality=dataset.modality,
        phantom=dataset.phantom,
        labels=dataset.label_table.by_id,
        spacing_mm=dataset.spacing_mm,
        axis_codes=dataset.axis_codes,
        image_dtype=dataset.image_dtype,
        pipeline_name=name,
        pipeline_version=version,
        seed=seed,
        config_hash=config_hash({stage: used[stage].info.stage_config for stage in stages}),
        weights_sha256={stage: sha256_of(used[stage].root / WEIGHTS) for stage in stages},
        batch=config.batch,
        threads=config.threads,
        device="cuda" if config.use_gpu else "cpu",
    )
