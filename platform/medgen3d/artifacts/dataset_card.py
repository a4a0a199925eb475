"""`dataset_card.md` describes a synthetic set for those who get it without having made it."""

from collections import Counter
from collections.abc import Mapping
from fnmatch import fnmatchcase

import pyarrow as pa
import pyarrow.compute as pc

from medgen3d.artifacts.case_status import CaseStatus
from medgen3d.artifacts.manifest import SyntheticSetInfo
from medgen3d.artifacts.report import Report
from medgen3d.artifacts.report_parts import Metric
from medgen3d.artifacts.storage import Folder
from medgen3d.artifacts.synthetic_set import read_columns

CARD = "dataset_card.md"
_QUALITY = "## Quality"
_CRITERIA: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("congruence", "how like real data are they", ("fidelity.fid.*", "fidelity.intensity", "agreement.dice_gap")),
    ("coverage", "do they vary as real data do", ("fidelity.ms_ssim", "plausibility.volume.*")),
    ("constraint", "do they keep to anatomy", ("plausibility.components_difference.*",)),
    ("completeness", "is all there that a use needs", ("usefulness.tstr_ratio", "usefulness.gain*")),
    ("compliance", "are people protected", ("novelty.near_copies*", "novelty.nearer_to_training.*")),
    ("comprehension", "can a user see what they are", ()),
    ("consistency", "are they the same everywhere", ("consistency.*",)),
)
"""(criterion, its question, the metrics that answer it)."""
_LAYOUT = {
    "nifti": "`images/CASE.nii.gz` and `labels/CASE.nii.gz` on one grid; `dataset.json` is that of the Medical "
    "Segmentation Decathlon and of nnU-Net, which wants the label ids to be 0, 1, 2, ...",
    "parquet": "`pairs/CASE.parquet`, one row each: voxels as little-endian bytes in C order, (D, H, W).",
    "dicom": "`dicom/CASE/image` is a DICOM series, `dicom/CASE/segmentation.dcm` a DICOM segmentation of it. Dates in "
    "them are made up.",
}


def write_card(folder: Folder, licence: str | None, idle: Mapping[str, str]) -> None:
    """Describe the set as it is now.

    Args:
        folder: The set's.
        licence: Of the training data; None if it is not known.
        idle: Gates that did not run, and why.

    Raises:
        OSError: The folder cannot be written.
    """
    info, table = read_columns(folder)
    folder.write(CARD, _text(info, table, licence, idle).encode())


def _text(info: SyntheticSetInfo, table: pa.Table, licence: str | None, idle: Mapping[str, str]) -> str:
    done, failed, rejected = (
        _number(table, status) for status in (CaseStatus.DONE, CaseStatus.FAILED, CaseStatus.REJECTED)
    )
    phantom = "**PHANTOM DATA**: the training data were computed, no patient was imaged.\n\n" if info.phantom else ""
    labels = ", ".join(f"{label_id} {name}" for label_id, name in info.written_labels.by_id.items())
    spacing = " x ".join(f"{length:g}" for length in info.spacing_mm)
    return f"""# {info.dataset_name}, synthetic

{phantom}{done} pairs of an image ({info.modality}) and its label mask, drawn by a model. Not for diagnosis.

| | |
| --- | --- |
| pairs | {done} accepted, {failed} given up, {rejected} not drawn yet |
| labels | {labels} |
| voxels | {spacing} mm (D x H x W) unless the manifest says otherwise, {info.image_dtype} |
| drawn by | {info.pipeline_name} version {info.pipeline_version}, seed {info.seed}{_choices(info)} |
| weights | {_hashes(info.weights_sha256)} |
| trained on | {info.dataset_name}, digest `{info.dataset_digest[:12]}` |
| licence of the training data | {licence or "not known; ask whoever trained the pipeline"} |

## Layout

{_LAYOUT[info.format]} {_ids(info)}`manifest.parquet` has a row per planned pair with the SHA-256 of its
files, `plan.parquet` what was asked for.

## Gates

{_gates(info, table, idle)}

{quality(None)}"""


def with_quality(card: str, report: Report) -> str:
    """The card of a set with the figures of a report on it."""
    before, _, _ = card.partition(f"{_QUALITY}\n")
    return before + quality(report)


def quality(report: Report | None) -> str:
    """The seven Cs by which the FDA's scorecard looks at synthetic medical data, from a report's figures.

    Source: Zamzmi et al., npj Digital Medicine 2025 (arXiv:2406.11143), for the criteria.
    """
    rows = [f"| {name} | {meaning} | {_figures(report, patterns)} |" for name, meaning, patterns in _CRITERIA]
    origin = "No report is at hand: `medgen3d evaluate` writes this card with its figures."
    if report is not None:
        origin = f"Figures of the report of {report.created:%Y-%m-%d} on {report.synthetic.num_cases} pairs."
    return "\n".join([_QUALITY, "", origin, "", "| criterion | asks | found |", "| --- | --- | --- |", *rows, ""])


def _figures(report: Report | None, patterns: tuple[str, ...]) -> str:
    if not patterns:
        return "this card, the manifest and the marks in the files"
    metrics = [] if report is None else report.metrics
    found = [metric for pattern in patterns for metric in metrics if fnmatchcase(metric.name, pattern)]
    told = [f"{metric.title} {metric.value:.3g}{_of_floor(metric)}" for metric in found if metric.value is not None]
    return "; ".join(told).replace("|", "/") or "not measured"


def _of_floor(metric: Metric) -> str:
    unit = f" {metric.unit}" if metric.unit else ""
    return unit if metric.floor is None else f"{unit} (real against real {metric.floor:.3g})"


def _ids(info: SyntheticSetInfo) -> str:
    """The ids of the files, where they are no others than 0, 1, 2, ... nothing."""
    table = info.label_table
    if not table.has_gaps:
        return ""
    if info.label_ids == "consecutive" or info.format == "dicom":
        what = "Segments are numbered" if info.format == "dicom" else "Labels are numbered anew"
        pairs = ", ".join(f"{number} is {label_id}" for number, label_id in enumerate(table.original_ids) if number)
        return f"{what} by their ids in the training data: {pairs}. "
    if info.format == "nifti":
        return (
            "The label ids have gaps, which nnU-Net refuses; `synthesis.label_ids=consecutive` numbers them 0, 1, 2. "
        )
    return ""


def _number(table: pa.Table, status: CaseStatus) -> int:
    return int(pc.sum(pc.equal(table["status"], status)).as_py() or 0)


def _choices(info: SyntheticSetInfo) -> str:
    choices = [f"{stage}.{option}={value}" for stage, named in info.sampling.items() for option, value in named.items()]
    choices += [] if info.refined else ["not refined"]
    choices += [f"for given masks (digest `{info.masks_digest[:12]}`)"] if info.masks_digest else []
    choices += [f"after a plan file (digest `{info.plan_digest[:12]}`)"] if info.plan_digest else []
    return "".join(f", {choice}" for choice in choices)


def _hashes(weights: dict[str, str]) -> str:
    return ", ".join(f"{stage} `{digest[:12]}`" for stage, digest in weights.items())


def _gates(info: SyntheticSetInfo, table: pa.Table, idle: Mapping[str, str]) -> str:
    is_listed = pc.or_(pc.greater(table["redraws"], 0), pc.not_equal(table["status"], CaseStatus.DONE))
    counts: Counter[str] = Counter()
    for case in table.filter(is_listed)["rejections"].to_pylist():
        counts.update(dict(case or []))
    lines = [f"- {gate}: run (digest of its limits `{digest[:12]}`)" for gate, digest in info.gates.items()]
    lines += [f"- {gate}: not run, {reason}" for gate, reason in idle.items()]
    lines += [f"- draws rejected for {reason}: {number}" for reason, number in sorted(counts.items())]
    return "\n".join(lines or ["None ran: every draw was accepted."])
