"""The section of pictures, which comes first: real cases next to synthetic ones, and synthetic ones alone."""

import numpy as np

from medgen3d.artifacts.pictures import Case, montage
from medgen3d.artifacts.report_parts import Picture, ReportSection
from medgen3d.evaluation.section_result import SectionResult
from medgen3d.evaluation.sets import LabelledSet

NUM_PICTURED = 4
_ABOUT = (
    "Each case in its axial, coronal and sagittal slice with most foreground, without and with its mask. Letters at "
    "the edges: A anterior, P posterior, S superior, L left. All panels of a picture share one scale; each image is "
    "shown between its own percentiles 0.5 and 99.5. The cases are spread evenly over each set: nobody has picked the "
    "best."
)
_BESIDE = Picture(
    file="montage.png",
    caption="Real cases on the left, synthetic cases on the right",
    alt="Real cases in the left column and synthetic cases in the right column, in three planes, without and with the "
    "outlined mask.",
)
_ALONE = Picture(
    file="synthetic.png",
    caption="Synthetic cases alone: the picture that holds no real case",
    alt="Synthetic cases in three planes, without and with the outlined mask.",
)


def pictures(real: LabelledSet, synthetic: LabelledSet) -> SectionResult:
    """Draw a few cases of each set; they are read here."""
    names = dict(enumerate(real.labels.titles))
    real_cases, synthetic_cases = _pictured(real, "real"), _pictured(synthetic, "synthetic")
    beside = [case for row in zip(real_cases, synthetic_cases, strict=False) for case in row]  # as far as both reach
    return SectionResult(
        section=ReportSection(name="pictures", title="Pictures", about=_ABOUT, pictures=[_BESIDE, _ALONE]),
        pictures={
            _BESIDE.file: montage(beside, names, synthetic.spacing_mm, num_columns=2),
            _ALONE.file: montage(synthetic_cases, names, synthetic.spacing_mm, num_columns=2),
        },
    )


def _pictured(labelled: LabelledSet, kind: str) -> list[Case]:
    kind = f"PHANTOM, {kind}" if labelled.phantom else kind
    places = np.linspace(0, len(labelled.case_ids) - 1, min(NUM_PICTURED, len(labelled.case_ids))).round().astype(int)
    return [(f"{kind}: {labelled.case_ids[place]}", *labelled.read(labelled.case_ids[place])) for place in places]
