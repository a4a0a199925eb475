"""Writing the cases of a batch: their files, in scanner units and original label ids, and then the manifest's rows."""

from collections import Counter

from medgen3d.artifacts.bundle import BundleDataset
from medgen3d.artifacts.case_status import CaseStatus
from medgen3d.artifacts.manifest import ManifestRow, SyntheticSetInfo
from medgen3d.artifacts.planned_case import PlannedCase
from medgen3d.artifacts.storage import Location
from medgen3d.artifacts.synthetic_set import write_case, write_part
from medgen3d.core.resample import resample
from medgen3d.synthesis.batch_codec import InFlightBatch, InFlightCase

MAX_REDRAWS = 99
_REDRAW, _NUMBER = 10**12, 2  # factors of a part's number


def write_batch(
    batch: InFlightBatch, dataset: BundleDataset, info: SyntheticSetInfo, out: Location, max_redraws: int
) -> list[ManifestRow]:
    """Write the cases of a batch that are accepted and, once their files are in place, the rows of all.

    Args:
        batch: As the last stage left it: its wanted cases.
        dataset: What the pipeline was trained on.
        info: The set's identity.
        out: The set's folder.
        max_redraws: How often a case that is rejected is drawn again.

    Raises:
        OSError: The folder cannot be written.
    """
    rows = [_write(case, dataset, info, out, max_redraws) for case in batch.cases]
    write_part(out, info, part_number([case.plan for case in batch.cases]), rows)
    return rows


def part_number(plans: list[PlannedCase]) -> int:
    """The number of the part that a batch's rows go into: later draws of a case have larger ones."""
    first = plans[0]
    return first.redraw * _REDRAW + first.number * _NUMBER + (len(plans) == 1)


def failed_row(plan: PlannedCase, message: str, rejections: dict[str, int]) -> ManifestRow:
    """The row of a case that is given up."""
    return ManifestRow(
        case_id=plan.case_id,
        number=plan.number,
        shape=plan.shape,
        status=CaseStatus.FAILED,
        message=message,
        redraws=plan.redraw,
        rejections=rejections,
    )


def _write(
    case: InFlightCase, dataset: BundleDataset, info: SyntheticSetInfo, out: Location, max_redraws: int
) -> ManifestRow:
    plan = case.plan
    if case.failure:
        return failed_row(plan, case.failure, case.earlier_rejections)
    if case.rejections:
        reasons = "; ".join(case.rejections.values())
        again = plan.redraw < max_redraws
        counts = dict(Counter(case.earlier_rejections) + Counter(list(case.rejections)))
        times = "" if again else f" (drawn {plan.redraw + 1} times)"
        row = failed_row(plan, f"case {plan.case_id}: {reasons}{times}", counts)
        status = CaseStatus.REJECTED if again else CaseStatus.FAILED
        return row.model_copy(update={"status": status, "gates": case.scores})
    image, mask = dataset.as_volumes(case.image, case.mask)
    if plan.spacing_mm:
        image, mask = resample(image, plan.spacing_mm, "linear"), resample(mask, plan.spacing_mm, "nearest")
    row = write_case(out, info, case_id=plan.case_id, number=plan.number, image=image, mask=mask)
    facts = {"message": case.note, "redraws": plan.redraw, "rejections": case.earlier_rejections, "gates": case.scores}
    return row.model_copy(update=facts)
