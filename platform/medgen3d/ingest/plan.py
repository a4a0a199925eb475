"""The plan: everything that is decided before a voxel is changed, from what verification found.

A plan is complete: preparing a case needs nothing but the plan, so that cases can be prepared anywhere, in any order
and again after an interruption. Its hash tells whether two runs would write the same.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from medgen3d.artifacts.intensity import Intensity
from medgen3d.artifacts.prepared_set import CaseEntry, DatasetInfo, Split
from medgen3d.core.resample import Sizes, grid_shape
from medgen3d.ingest.problems import BadCasesError, CaseProblem
from medgen3d.ingest.request import IngestRequest
from medgen3d.ingest.sources import Pair
from medgen3d.ingest.split import split_patients
from medgen3d.ingest.verify import CaseFacts, Verification

VERSION = 1
"""Raised when `prepare` makes something else of the same plan, so that no part of an older run is kept."""
_PLANE_MULTIPLE = 8
_Notes = dict[str, list[str]]


class CasePlan(BaseModel):
    """One case to prepare."""

    model_config = ConfigDict(frozen=True)

    pair: Pair
    split: Split
    intensity: Intensity


class IngestPlan(BaseModel):
    """The set that will be written: its finished table of contents, and for each of its cases where it comes from."""

    model_config = ConfigDict(frozen=True)

    version: int = VERSION
    info: DatasetInfo
    cases: tuple[CasePlan, ...]

    @property
    def hash(self) -> str:
        """SHA-256 of the plan, without the place of the source files: their content is in it already.

        Notes change no voxel.
        """
        text = self.model_dump_json(exclude={"cases": {"__all__": {"pair"}}, "info": {"notes"}}, exclude_none=True)
        return hashlib.sha256(text.encode()).hexdigest()


def make_ingest_plan(
    request: IngestRequest, verifications: list[Verification], lost: Sequence[CaseProblem] = (), *, skip_bad: bool
) -> IngestPlan:
    """Decide everything about a data set.

    Args:
        request: The source and the user's choices.
        verifications: One for each pair of the source, in any order.
        lost: Problems that an earlier plan's grid has made.
        skip_bad: Leave bad cases out instead of refusing.

    Raises:
        BadCasesError: There are problems, and `skip_bad` is off or no case is left.
    """
    problems = [*request.source.problems, *(problem for each in verifications for problem in each.problems), *lost]
    sound = {each.case: each.facts for each in verifications if each.facts}
    spacing_mm = request.config.spacing_mm or _median_spacing(sound.values())
    problems += _too_thin(sound, spacing_mm, request.config.min_slices)
    problems += _unoriented(sound)
    bad = {problem.case for problem in problems}
    good = {case: sound[case] for case in sorted(sound) if case not in bad}
    if not good or (bad and not skip_bad):
        raise BadCasesError(sorted(problems, key=lambda problem: problem.case), request.source.num_cases)
    skipped = {case: "; ".join(_brief(problem) for problem in problems if problem.case == case) for case in sorted(bad)}
    info = _table_of_contents(request, good, spacing_mm, skipped)
    pair_of = {pair.case: pair for pair in request.source.pairs}
    cases = (
        CasePlan(pair=pair_of[entry.case_id], split=entry.split, intensity=good[entry.case_id].intensity)
        for entry in info.cases
    )
    return IngestPlan(info=info, cases=tuple(cases))


def _table_of_contents(
    request: IngestRequest, good: dict[str, CaseFacts], spacing_mm: Sizes, skipped: dict[str, str]
) -> DatasetInfo:
    patients = {case: request.patients[case] for case in good}
    split_of = split_patients(set(patients.values()), request.config.split_shares, request.seed)
    shapes = {case: grid_shape(facts.shape, facts.spacing_mm, spacing_mm) for case, facts in good.items()}
    plane = request.config.plane or _smallest_plane(shapes.values())
    found = {label for facts in good.values() for label in facts.labels_found}
    entries = [
        CaseEntry(
            case_id=case,
            patient=patients[case],
            split=split_of[patients[case]],
            shape=(shapes[case][0], min(shapes[case][1], plane[0]), min(shapes[case][2], plane[1])),
            sources_sha256=facts.sha256,
        )
        for case, facts in good.items()
    ]
    train = [good[entry.case_id] for entry in entries if entry.split == "train"]
    inverse = Intensity.median_of([facts.intensity for facts in train])
    return DatasetInfo(
        name=request.name,
        modality=request.modality,
        phantom=request.source.phantom,
        labels=request.labels.by_id if request.labels else _declared(found),
        spacing_mm=spacing_mm,
        plane=plane,
        axis_codes=_most_common(facts.axis_codes for facts in good.values()),
        image_dtype=_voxel_type(train, inverse),
        intensity=request.intensity,
        inverse=inverse,
        seed=request.seed,
        patients_known=request.patients_known,
        cases=entries,
        cropped=[case for case, shape in shapes.items() if shape[1] > plane[0] or shape[2] > plane[1]],
        skipped=skipped,
        notes=_notes(request, good, found),
    )


def _notes(request: IngestRequest, good: dict[str, CaseFacts], found: set[int]) -> _Notes:
    """Of the source as a whole, of its cases, and of labels that none of them has."""
    notes: _Notes = {note: [] for note in request.source.notes}
    for case, facts in good.items():
        for note in facts.notes:
            notes.setdefault(note, []).append(case)
    declared = request.labels.by_id.items() if request.labels else ()
    return notes | {
        f"label {label_id} ({label}) is declared, but no case has it": []
        for label_id, label in declared
        if label_id and label_id not in found
    }


def _voxel_type(train: Sequence[CaseFacts], inverse: Intensity) -> str:
    """The smallest of int16, uint16 and float32 that holds what synthetic images will hold.

    They are whole numbers only where all training images are: otherwise an image in [0, 1] would become 0 and 1.
    """
    if all(facts.is_whole for facts in train):
        for dtype in (np.int16, np.uint16):
            limits = np.iinfo(dtype)
            if limits.min <= inverse.low and inverse.high <= limits.max:
                return np.dtype(dtype).name
    return "float32"


def _unoriented(sound: dict[str, CaseFacts]) -> list[CaseProblem]:
    """Cases that do not say how they lie in the patient, among cases that do: they may be upside down."""
    unsaid = [case for case, facts in sound.items() if not facts.is_oriented]
    if len(unsaid) == len(sound):
        return []
    return [
        CaseProblem(
            case=case,
            kind="unknown orientation",
            found="neither an sform nor a qform with a code above 0",
            expected="an orientation, as the other cases have one",
            remedy="Export the image with its orientation, or leave the case out.",
        )
        for case in unsaid
    ]


def _too_thin(sound: dict[str, CaseFacts], spacing_mm: Sizes, min_slices: int) -> list[CaseProblem]:
    """Counted on the training grid: it is there that a case must have slices."""
    counts = {case: grid_shape(facts.shape, facts.spacing_mm, spacing_mm)[0] for case, facts in sound.items()}
    return [
        CaseProblem(
            case=case,
            kind="too few slices",
            found=f"{count} slices of {spacing_mm[0]:g} mm",
            expected=f"at least {min_slices}",
            remedy="Remove the case, or choose another ingest.min_slices or ingest.spacing_mm.",
        )
        for case, count in counts.items()
        if count < min_slices
    ]


def _median_spacing(facts: Collection[CaseFacts]) -> Sizes:
    """The median voxel size of each axis; 1 mm where there is no case, and then nothing will be made of it."""
    if not facts:
        return 1.0, 1.0, 1.0
    depth, height, width = np.median([one.spacing_mm for one in facts], axis=0).round(6).tolist()
    return depth, height, width


def _smallest_plane(shapes: Iterable[tuple[int, int, int]]) -> tuple[int, int]:
    """The smallest multiples of 8 that hold every case."""
    _, heights, widths = zip(*shapes, strict=True)
    return (
        math.ceil(max(heights) / _PLANE_MULTIPLE) * _PLANE_MULTIPLE,
        math.ceil(max(widths) / _PLANE_MULTIPLE) * _PLANE_MULTIPLE,
    )


def _declared(found: set[int]) -> dict[int, str]:
    return {label: f"label_{label}" if label else "background" for label in sorted(found | {0})}


def _most_common(values: Iterable[str]) -> str:
    """The most frequent value; of equally frequent ones the first in the alphabet."""
    return min(Counter(values).items(), key=lambda item: (-item[1], item[0]))[0]


def _brief(problem: CaseProblem) -> str:
    return f"{problem.kind}: found {problem.found}, expected {problem.expected}"
