"""From drawn cases to files: scanner units, original label ids, a grid; then the manifest's rows."""

from collections import Counter

from medgen3d.artifacts.bundle import BundleDataset
from medgen3d.artifacts.manifest import ManifestRow, SyntheticSetInfo
from medgen3d.artifacts.planned_case import PlannedCase
from medgen3d.artifacts.storage import Location
from medgen3d.artifacts.synthetic_set import write_case, write_part
from medgen3d.core.resample import resample
from medgen3d.synthesis.batch_codec import InFlightBatch, InFlightCase

MAX_REDRAWS = 99
_REDRAW, _NUMBER = 10**12, 2  # how a part's number is made


def write_batch(
    work: InFlightBatch, dataset: BundleDataset, info: SyntheticSetInfo, out: Location, max_redraws: int
) -> list[ManifestRow]:
    """Write the cases of a batch that are accepted and, once their files are in place, the rows of all.

    Args:
        work: The batch as the last stage left it: its wanted cases.
        dataset: What the pipeline was trained on.
        info: The set's identity.
        out: The set's folder.
        max_redraws: How often a case that is rejected is drawn again.

    Raises:
        OSError: The folder cannot be written.
    """
    rows = [_write(case, dataset, info, out, max_redraws) for case in work.cases]
    write_part(out, info, part_of([case.plan for case in work.cases]), rows)
    return rows


def part_of(plans: list[PlannedCase]) -> int:
    """The number of the part that a batch's rows go into: later draws of a case have larger ones."""
    first = plans[0]
    return first.redraw * _REDRAW + first.number * _NUMBER + (len(plans) == 1)


def given_up(plan: PlannedCase, message: str, before: dict[str, int]) -> ManifestRow:
    """The row of a case that is given up."""
    return ManifestRow(
        case_id=plan.case_id,
        number=plan.number,
        shape=plan.shape,
        status="failed",
        message=message,
        redraws=plan.redraw,
        rejections=before,
    )


def _write(
    case: InFlightCase, dataset: BundleDataset, info: SyntheticSetInfo, out: Location, max_redraws: int
) -> ManifestRow:
    plan = case.plan
    if case.failure:
        return given_up(plan, case.failure, case.before)
    if case.rejections:
        reasons = "; ".join(case.rejections.values())
        again = plan.redraw < max_redraws
        counts = dict(Counter(case.before) + Counter(list(case.rejections)))
        row = given_up(plan, f"case {plan.case_id}: {reasons}" + ("" if again else _given_up(plan)), counts)
        return row.model_copy(update={"status": "rejected" if again else "failed", "gates": case.scores})
    image, mask = dataset.as_volumes(case.image, case.mask)
    if plan.spacing_mm:
        image, mask = resample(image, plan.spacing_mm, "linear"), resample(mask, plan.spacing_mm, "nearest")
    row = write_case(out, info, case_id=plan.case_id, number=plan.number, image=image, mask=mask)
    return row.model_copy(
        update={"message": case.note, "redraws": plan.redraw, "rejections": case.before, "gates": case.scores}
    )


def _given_up(plan: PlannedCase) -> str:
    return f" (drawn {plan.redraw + 1} times)"
