"""A run of bulk synthesis: the identity of its set, its plan, and the ledger of what is there already."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from medgen3d.artifacts.bundle import Bundle, BundleDataset, read_bundle
from medgen3d.artifacts.bundle_weights import WEIGHTS
from medgen3d.artifacts.case_status import CaseStatus
from medgen3d.artifacts.manifest import ManifestRow, SyntheticSetInfo, rows_of
from medgen3d.artifacts.pipeline import Pipeline
from medgen3d.artifacts.provenance import drawing_hash
from medgen3d.artifacts.storage import Folder, Location
from medgen3d.artifacts.synthetic_set import damages, existing_columns
from medgen3d.config.engine import WIDTHS
from medgen3d.config.experiment import CHAIN, SynthesisConfig
from medgen3d.core.errors import ConfigError
from medgen3d.core.hashing import sha256_of
from medgen3d.synthesis.batch_codec import InFlightBatch, begin
from medgen3d.synthesis.case_ledger import BatchSpec, CaseLedger
from medgen3d.synthesis.gates import GateRules
from medgen3d.synthesis.given_masks import GivenMasks, open_masks
from medgen3d.synthesis.plan import SynthesisPlan
from medgen3d.synthesis.plan_file import read_plan
from medgen3d.synthesis.run_options import RunOptions
from medgen3d.synthesis.sampling import options_changed, with_options

_READERS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class SynthesisRun:
    """What is to be drawn.

    bundles: By stage, with the sampling options that are used.
    stages: Those that draw, in their options: masks may be given, and refinement left out.
    given: The masks that are given for the whole set; None if they are drawn.
    ledger: What is done of it; changes while it is drawn.
    """

    bundles: dict[str, Bundle]
    stages: tuple[str, ...]
    given: GivenMasks | None
    info: SyntheticSetInfo
    folder: Folder
    plan: SynthesisPlan
    gates: GateRules
    ledger: CaseLedger

    @property
    def dataset(self) -> BundleDataset:
        return self.bundles["mask_generator"].info.dataset

    def in_flight(self, key: int, batch: BatchSpec) -> InFlightBatch:
        """A batch as workers get it."""
        numbers = [number for number in batch.numbers if not self.given or number < len(self.given.shapes)]
        cases = begin([self.plan.case(number).model_copy(update={"redraw": batch.redraw}) for number in numbers])
        earlier = self.ledger.rejections
        cases = [replace(case, earlier_rejections=earlier.get(case.plan.number, {}), note=batch.note) for case in cases]
        return InFlightBatch(key=key, wanted=list(batch.wanted), cases=cases)


def open_run(
    pipeline: Pipeline,
    count: int | None,
    seed: int,
    out: Location,
    config: SynthesisConfig,
    options: RunOptions | None = None,
) -> SynthesisRun:
    """Find out what is missing; nothing is written. The arguments are those of `medgen3d.synthesis.on_ray.synthesize`.

    Raises:
        ConfigError: `count` is not positive or missing, the plan is not valid, or an option cannot be chosen at
            synthesis.
        DataError: A bundle or given masks cannot be used, or `out` holds something else or the work of another
            pipeline, seed, plan or other gates.
    """
    options, folder = options or RunOptions(), Folder.of(out)
    trained = {stage: read_bundle(pipeline.bundles[stage].absolute()) for stage in CHAIN}
    used = {stage: with_options(bundle, options.sampling.get(stage, {})) for stage, bundle in trained.items()}
    dataset = trained["mask_generator"].info.dataset
    given = open_masks(options.masks, dataset, options.split) if options.masks else None
    plan = _plan(count, seed, options, dataset, given)
    stages = tuple(stage for stage in CHAIN if _draws(stage, config, given))
    sampling = {stage: options_changed(trained[stage], used[stage]) for stage in stages}
    info = _identity(pipeline, used, stages, seed, config).model_copy(
        update={
            "sampling": {stage: changed for stage, changed in sampling.items() if changed},
            "refined": config.refine,
            "masks_digest": given.digest if given else None,
            "plan_digest": plan.digest,
            "gates": options.gates.digests,
            "format": options.format,
        }
    )
    table = existing_columns(folder.location, info)
    ledger = CaseLedger.of(table, plan.count, info.batch, config.max_redraws)
    ledger.record_damage(_damaged(folder, info, table, plan.count))
    if options.retry_failed:
        ledger.retry_failed()
    return SynthesisRun(
        bundles=used,
        stages=stages,
        given=given,
        info=info,
        folder=folder,
        plan=plan,
        gates=options.gates,
        ledger=ledger,
    )


def _plan(
    count: int | None, seed: int, options: RunOptions, dataset: BundleDataset, given: GivenMasks | None
) -> SynthesisPlan:
    if (count is None) == (options.plan is None):
        raise ConfigError("give either a number of cases or a plan file")
    if options.plan is not None:
        if given:
            raise ConfigError("a plan file names the masks of its cases itself; leave --masks out")
        return read_plan(options.plan, dataset, seed)
    if count is None or count < 1:
        raise ConfigError(f"the number of cases must be at least 1, got {count}")
    count = min(count, len(given.case_ids)) if given else count
    return SynthesisPlan(count=count, seed=seed, shapes=dataset.shapes, given=given.shapes if given else None)


def _draws(stage: str, config: SynthesisConfig, given: GivenMasks | None) -> bool:
    return {"mask_generator": given is None, "refiner": config.refine}.get(stage, True)


def _damaged(folder: Folder, info: SyntheticSetInfo, table: pa.Table | None, count: int) -> list[int]:
    """Numbers of the cases that are done but whose files are not what was written; every file is read."""
    if table is None:
        return []
    is_chosen = pc.and_(pc.equal(table["status"], CaseStatus.DONE), pc.less(table["number"], count))
    rows = rows_of(table.filter(is_chosen), str(folder))
    with ThreadPoolExecutor(_READERS) as pool:
        is_damaged = pool.map(partial(_is_damaged, folder.location, info), rows)
        return [row.number for row, damaged in zip(rows, is_damaged, strict=True) if damaged]


def _is_damaged(location: str, info: SyntheticSetInfo, row: ManifestRow) -> bool:
    return any(damages(location, info, row))


def _identity(
    pipeline: Pipeline, used: Mapping[str, Bundle], stages: tuple[str, ...], seed: int, config: SynthesisConfig
) -> SyntheticSetInfo:
    device: Literal["cpu", "cuda"] = "cuda" if config.use_gpu else "cpu"
    return SyntheticSetInfo.of(
        used["mask_generator"].info.dataset,
        pipeline_name=pipeline.name,
        pipeline_version=pipeline.version,
        seed=seed,
        config_hash=drawing_hash({stage: used[stage].info.stage_config for stage in stages}),
        weights_sha256={stage: sha256_of(used[stage].root / WEIGHTS) for stage in stages},
        batch=config.batch or WIDTHS[device],
        threads=config.threads,
        device=device,
        label_ids=config.label_ids,
    )
