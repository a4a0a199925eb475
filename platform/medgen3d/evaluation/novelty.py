"""Novelty: the share of synthetic cases that are near copies of training cases, next to that of new real cases."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from medgen3d.artifacts.pictures import Case, montage
from medgen3d.artifacts.plots import histogram_grid
from medgen3d.artifacts.report_parts import Cell, Metric, Picture, ReportSection, Table
from medgen3d.evaluation.section_result import SectionResult
from medgen3d.evaluation.sets import LabelledSet
from medgen3d.measures.fingerprints import Nearest, threshold

NUM_PICTURED = 3
NEAREST_PLOT, MATCHES = "nearest.png", "nearest_matches.png"

Similarities = NDArray[np.float64]
Flags = NDArray[np.bool_]

MEASURES = {"image": "image correlation", "mask": "mask Dice", "embedding": "feature distance"}
_ABOUT = (
    "For every synthetic case the most similar training case is looked for, under flips and small shifts. The same is "
    "done for held-out real cases, which are new for certain: a synthetic case is a near copy where it comes closer to "
    "a training case than 99 % of them do. A set that copies nothing has about 1 % of these by either measure alone, "
    "or 1 / (n + 1) where the held-out cases are n < 99, and fewer by both. The floor is the share among the held-out "
    "cases themselves, each judged by the others. Where nothing is memorised, a synthetic case is nearer to a training "
    "case as often as to a held-out one, if as many of both are looked at: in half of the cases. The floor is that "
    "share among held-out cases, each against the others. Membership inference tries to tell from a trained stage "
    "which cases it was trained on; 0.5 means that it cannot."
)


def novelty(
    synthetic: Sequence[Nearest],
    held_out: Sequence[Nearest],
    synthetic_set: LabelledSet,
    train_set: LabelledSet,
    more: Sequence[Metric],
) -> SectionResult:
    """The section "novelty".

    Args:
        synthetic: Per case of `synthetic_set`, in its order: the nearest cases of `train_set`; at least one.
        held_out: The same for real cases that no stage was trained on; at least one.
        synthetic_set: For names and pictures.
        train_set: The same.
        more: Of memorisation by other means: `preference_metrics`, and one `membership_metric` per stage.
    """
    ours, theirs = _similarities(synthetic), _similarities(held_out)
    return SectionResult(
        section=ReportSection(
            name="novelty",
            title="Novelty",
            about=_ABOUT,
            metrics=[*_share_metrics(ours, theirs), *more],
            tables=[_distances_table(ours, theirs), _matches_table(synthetic, synthetic_set, train_set)],
            pictures=_pictures(),
        ),
        pictures={
            NEAREST_PLOT: _plot(ours, theirs),
            MATCHES: _montage(synthetic, synthetic_set, train_set),
        },
    )


def near_copies(cases: Similarities, held_out: Similarities) -> Flags:
    """Flags cases that are more similar to their nearest training case than 99 % of held-out cases are to theirs."""
    return cases > threshold(held_out)


def _similarities(cases: Sequence[Nearest]) -> dict[str, Similarities]:
    """Per measure the similarities to the nearest training cases; the larger, the closer."""
    found = {
        "image": np.array([case.image_correlation for case in cases]),
        "mask": np.array([case.mask_dice for case in cases]),
    }
    distances = [case.embedding_distance for case in cases if case.embedding_distance is not None]
    if len(distances) == len(cases):
        found["embedding"] = -np.array(distances)
    return found


def _share_metrics(synthetic: dict[str, Similarities], held_out: dict[str, Similarities]) -> list[Metric]:
    measures = [measure for measure in MEASURES if measure in synthetic and measure in held_out]
    flags = {measure: near_copies(synthetic[measure], held_out[measure]) for measure in measures}
    floors = {measure: _among_themselves(held_out[measure]) for measure in measures}
    both = [each["image"] & each["mask"] for each in (flags, floors)]
    return [
        _share("novelty.near_copies", "Near copies, by image and mask", *both),
        *(
            _share(f"novelty.near_copies_{measure}", f"Near copies, by {MEASURES[measure]}", flags[measure], floor)
            for measure, floor in floors.items()
        ),
    ]


def _among_themselves(held_out: Similarities) -> Flags:
    """Flags the held-out cases that would count as near copies, each judged by all others; empty for a single case."""
    others = (np.delete(held_out, place) for place in range(len(held_out)))
    flags = [near_copies(held_out[place], rest) for place, rest in enumerate(others) if len(rest)]
    return np.array(flags, dtype=bool)


def _share(name: str, title: str, flags: Flags, floor: Flags) -> Metric:
    interval = binomtest(int(flags.sum()), len(flags)).proportion_ci(method="wilson")
    return Metric(
        name=name,
        title=title,
        value=float(flags.mean()),
        floor=float(floor.mean()) if len(floor) else None,
        interval=(float(interval.low), float(interval.high)),
        num=len(flags),
        num_of="synthetic cases",
    )


def _distances_table(synthetic: dict[str, Similarities], held_out: dict[str, Similarities]) -> Table:
    rows: list[list[Cell]] = []
    for measure, ours in synthetic.items():
        if measure not in held_out:
            continue
        sign = -1 if measure == "embedding" else 1
        theirs = held_out[measure]
        numbers = (np.median(ours), ours.max(), np.median(theirs), theirs.max(), threshold(theirs))
        rows.append([MEASURES[measure], *(sign * float(number) for number in numbers)])
    return Table(
        title="To the nearest training case",
        columns=["", "synthetic, median", "synthetic, closest", "real, median", "real, closest", "near copy beyond"],
        rows=rows,
    )


def _closest(synthetic: Sequence[Nearest]) -> list[int]:
    """The cases whose images come closest to a training case, closest first."""
    return sorted(range(len(synthetic)), key=lambda place: -synthetic[place].image_correlation)[:NUM_PICTURED]


def _matches_table(synthetic: Sequence[Nearest], synthetic_set: LabelledSet, train_set: LabelledSet) -> Table:
    rows: list[list[Cell]] = []
    for place in _closest(synthetic):
        found = synthetic[place]
        names = synthetic_set.case_ids[place], train_set.case_ids[found.image_case], train_set.case_ids[found.mask_case]
        rows.append([names[0], names[1], found.image_correlation, names[2], found.mask_dice])
    return Table(
        title="The closest matches",
        columns=["synthetic case", "nearest image", "image correlation", "nearest mask", "mask Dice"],
        rows=rows,
    )


def _pictures() -> list[Picture]:
    return [
        Picture(
            file=NEAREST_PLOT,
            caption="Similarity to the nearest training case: held-out real and synthetic cases",
            alt="Histograms of the similarity of held-out real and of synthetic cases to their nearest training case.",
        ),
        Picture(
            file=MATCHES,
            caption="The synthetic cases whose images come closest to a training case, beside that case",
            alt="Synthetic cases in the left column, each with its nearest training case in the right column.",
        ),
    ]


def _plot(synthetic: dict[str, Similarities], held_out: dict[str, Similarities]) -> bytes:
    measures = [measure for measure in synthetic if measure in held_out]
    shown: list[list[Similarities]] = [
        [np.abs(group[measure]) if measure == "embedding" else group[measure] for measure in measures]
        for group in (held_out, synthetic)
    ]
    return histogram_grid([shown[0]], [shown[1]], ["cases"], [MEASURES[measure] for measure in measures])


def _montage(synthetic: Sequence[Nearest], synthetic_set: LabelledSet, train_set: LabelledSet) -> bytes:
    cases: list[Case] = []
    for place in _closest(synthetic):
        match = synthetic[place].image_case
        title = f"correlation {synthetic[place].image_correlation:.2f}: {synthetic_set.case_ids[place]}"
        cases.append(_case(title, synthetic_set, place))
        cases.append(_case(f"training case {train_set.case_ids[match]}", train_set, match))
    return montage(cases, dict(enumerate(train_set.labels.titles)), train_set.spacing_mm, num_columns=2)


def _case(title: str, labelled: LabelledSet, place: int) -> Case:
    title = f"PHANTOM, {title}" if labelled.phantom else title
    return (title, *labelled.read(labelled.case_ids[place]))
