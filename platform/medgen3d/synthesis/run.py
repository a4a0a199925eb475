"""A run of bulk synthesis: what identifies its results, and what of it is there already."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from medgen3d.artifacts.bundle import WEIGHTS, Bundle, BundleDataset, read_bundle
from medgen3d.artifacts.manifest import ManifestRow, SyntheticSetInfo, rows_of
from medgen3d.artifacts.provenance import config_hash
from medgen3d.artifacts.storage import Folder, Location
from medgen3d.artifacts.synthetic_set import damages, existing_columns
from medgen3d.config.engine import WIDTHS
from medgen3d.config.experiment import CHAIN, SynthesisConfig
from medgen3d.core.errors import ConfigError
from medgen3d.core.hashing import sha256_of
from medgen3d.synthesis.batch_codec import InFlightBatch, InFlightCase, begin
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
    stages: Those that draw, in their order: masks may be given, and refinement left out.
    given: The masks that are given for the whole set; None if they are drawn.
    standing: What is done of it; changes while it is drawn.
    """

    bundles: dict[str, Bundle]
    stages: tuple[str, ...]
    given: GivenMasks | None
    info: SyntheticSetInfo
    folder: Folder
    plan: SynthesisPlan
    gates: GateRules
    standing: CaseLedger

    @property
    def dataset(self) -> BundleDataset:
        return self.bundles["mask_generator"].info.dataset

    def work_of(self, key: int, item: BatchSpec) -> InFlightBatch:
        """An item as workers get it."""
        numbers = [number for number in item.numbers if not self.given or number < len(self.given.shapes)]
        cases = begin([self.plan.case(number).model_copy(update={"redraw": item.redraw}) for number in numbers])
        told = [_with_past(case, self.standing.rejections.get(case.plan.number, {}), item.note) for case in cases]
        return InFlightBatch(key=key, wanted=list(item.wanted), cases=told)


def open_run(
    bundles: Mapping[str, Path],
    name: str,
    version: int,
    count: int | None,
    seed: int,
    out: Location,
    config: SynthesisConfig,
    order: RunOptions | None = None,
) -> SynthesisRun:
    """Find out what is missing; nothing is written. The arguments are those of `medgen3d.synthesis.on_ray.synthesize`.

    Raises:
        ConfigError: `count` is not positive or missing, the plan is not valid, or an option cannot be chosen at
            synthesis.
        DataError: A bundle or given masks cannot be used, or `out` holds something else or the work of another
            pipeline, seed, plan or other gates.
    """
    order, folder = order or RunOptions(), Folder.of(out)
    trained = {stage: read_bundle(Path(bundles[stage]).absolute()) for stage in CHAIN}
    used = {stage: with_options(bundle, order.options.get(stage, {})) for stage, bundle in trained.items()}
    dataset = trained["mask_generator"].info.dataset
    given = open_masks(order.masks, dataset, order.split) if order.masks else None
    plan = _plan(count, seed, order, dataset, given)
    stages = tuple(stage for stage in CHAIN if _draws(stage, config, given))
    sampling = {stage: options_changed(trained[stage], used[stage]) for stage in stages}
    info = _identity(used, stages, name, version, seed, config).model_copy(
        update={
            "sampling": {stage: changed for stage, changed in sampling.items() if changed},
            "refined": config.refine,
            "masks_digest": given.digest if given else None,
            "plan_digest": plan.digest,
            "gates": order.gates.digests,
            "format": order.format,
        }
    )
    table = existing_columns(folder.location, info)
    standing = CaseLedger.of(table, plan.count, info.batch, config.max_redraws)
    standing.damaged(_damaged(folder, info, table, plan.count))
    if order.retry_failed:
        standing.retry()
    return SynthesisRun(
        bundles=used,
        stages=stages,
        given=given,
        info=info,
        folder=folder,
        plan=plan,
        gates=order.gates,
        standing=standing,
    )


def _plan(
    count: int | None, seed: int, order: RunOptions, dataset: BundleDataset, given: GivenMasks | None
) -> SynthesisPlan:
    if (count is None) == (order.plan is None):
        raise ConfigError("give either a number of cases or a plan file")
    if order.plan is not None:
        if given:
            raise ConfigError("a plan file names the masks of its cases itself; leave --masks out")
        return read_plan(order.plan, dataset, seed)
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
    is_chosen = pc.and_(pc.equal(table["status"], "done"), pc.less(table["number"], count))
    rows = rows_of(table.filter(is_chosen), str(folder))
    with ThreadPoolExecutor(_READERS) as pool:
        is_damaged = pool.map(partial(_is_damaged, folder.location, info), rows)
        return [row.number for row, damaged in zip(rows, is_damaged, strict=True) if damaged]


def _is_damaged(location: str, info: SyntheticSetInfo, row: ManifestRow) -> bool:
    return any(damages(location, info, row))


def _with_past(case: InFlightCase, before: dict[str, int], note: str) -> InFlightCase:
    return replace(case, before=before, note=note)


def _identity(
    used: Mapping[str, Bundle], stages: tuple[str, ...], name: str, version: int, seed: int, config: SynthesisConfig
) -> SyntheticSetInfo:
    dataset = used["mask_generator"].info.dataset
    device: Literal["cpu", "cuda"] = "cuda" if config.use_gpu else "cpu"
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
        batch=config.batch or WIDTHS[device],
        threads=config.threads,
        device=device,
    )
