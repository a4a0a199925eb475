"""From drawn cases to files: scanner units, original label ids, a grid; then the manifest's rows."""

from pathlib import Path

from medgen3d.artifacts.bundle import BundleDataset
from medgen3d.artifacts.manifest import ManifestRow, SyntheticSetInfo
from medgen3d.artifacts.synthetic_set import write_case, write_part
from medgen3d.synthesis.work import BatchInWork, CaseInWork


def write_batch(work: BatchInWork, dataset: BundleDataset, info: SyntheticSetInfo, out: Path) -> None:
    """Write the wanted cases of a batch and, once their files are in place, the rows that say so.

    Raises:
        OSError: The folder cannot be written.
    """
    cases = [case for case in work.cases if case.plan.number in work.wanted]
    write_part(out, info, work.batch, [_write(case, dataset, info, out) for case in cases])


def _write(case: CaseInWork, dataset: BundleDataset, info: SyntheticSetInfo, out: Path) -> ManifestRow:
    plan = case.plan
    if case.failure:
        return ManifestRow(
            case_id=plan.case_id, number=plan.number, shape=plan.shape, status="failed", message=case.failure
        )
    image, mask = dataset.as_volumes(case.image, case.mask)
    row = write_case(out, info, case_id=plan.case_id, number=plan.number, image=image, mask=mask)
    return row.model_copy(update={"message": case.note})
