"""Compare a synthetic set with a real one and write the report."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medgen3d.artifacts import report as files
from medgen3d.artifacts.pictures import Case, montage
from medgen3d.artifacts.plots import intensity_plot, label_volume_plot
from medgen3d.artifacts.provenance import code_version
from medgen3d.artifacts.report import IntensityFigures, LabelComparison, LabelFigures, Report, SetDescription, Spread
from medgen3d.core.errors import DataError
from medgen3d.core.seeds import stream_seed
from medgen3d.evaluation.sets import LabelledSet, open_real, open_synthetic
from medgen3d.evaluation.summary import NUM_SPLITS, CaseSummary, intensity_distance, summarise, to_millilitres

NUM_PICTURED = 4
NUM_PLOTTED_BINS = 64  # integer intensities leave a comb in finer ones

Progress = Callable[[int, int], None]


def compare(real_root: Path, synthetic_root: Path, out: Path, progress: Progress = lambda _done, _all: None) -> Report:
    """Write `report.json`, `report.html` and the pictures.

    Args:
        real_root: A prepared set, or NIfTI files in Medical Segmentation Decathlon layout.
        synthetic_root: A synthetic set.
        out: The report's folder; files of a former report are replaced.
        progress: Called with (cases read, cases in all) after each case.

    Raises:
        DataError: A set cannot be read or is empty, or the two differ in labels or spacing.
    """
    synthetic = open_synthetic(synthetic_root)
    real = open_real(real_root, synthetic.spacing_mm)
    _check_comparable(real, synthetic, real_root, synthetic_root)
    num_cases = len(real.case_ids) + len(synthetic.case_ids)
    summaries: list[list[CaseSummary]] = [[], []]
    for labelled, found in zip((real, synthetic), summaries, strict=True):
        for case_id in labelled.case_ids:
            found.append(summarise(*labelled.read(case_id), len(labelled.labels)))
            progress(sum(map(len, summaries)), num_cases)
    report = _report(real, synthetic, *summaries)
    files.write_report(out, report, _pictures(real, synthetic, *summaries))
    return report


def _check_comparable(real: LabelledSet, synthetic: LabelledSet, real_root: Path, synthetic_root: Path) -> None:
    for labelled, root in ((real, real_root), (synthetic, synthetic_root)):
        if not labelled.case_ids:
            raise DataError(f"{root} holds no cases. A report needs at least one real and one synthetic case.")
    if real.labels.original_ids != synthetic.labels.original_ids:
        raise DataError(
            f"{synthetic_root} has the labels {synthetic.labels.original_ids}, but {real_root} has "
            f"{real.labels.original_ids}. Give the real data that the pipeline was trained on."
        )


def _report(
    real: LabelledSet, synthetic: LabelledSet, of_real: list[CaseSummary], of_synthetic: list[CaseSummary]
) -> Report:
    rng = np.random.default_rng(stream_seed(0, "intensity distance"))  # the same sets always give the same figures
    distance = intensity_distance(_histograms(of_real), _histograms(of_synthetic), rng)
    return Report(
        created=datetime.now(UTC).replace(microsecond=0),
        code_version=code_version(),
        spacing_mm=synthetic.spacing_mm,
        real=_description(real),
        synthetic=_description(synthetic),
        labels=[_label(label, real, of_real, of_synthetic) for label in range(1, len(real.labels))],
        intensity=IntensityFigures(num_splits=NUM_SPLITS, **distance._asdict()),
    )


def _description(labelled: LabelledSet) -> SetDescription:
    return SetDescription(
        name=labelled.name, num_cases=len(labelled.case_ids), phantom=labelled.phantom, facts=labelled.facts
    )


def _label(
    label: int, real: LabelledSet, of_real: list[CaseSummary], of_synthetic: list[CaseSummary]
) -> LabelComparison:
    figures = [_figures(label, cases, real.spacing_mm) for cases in (of_real, of_synthetic)]
    real_ml, synthetic_ml = (each.volume_ml.mean for each in figures)
    return LabelComparison(
        label_id=real.labels.original_ids[label],
        name=real.labels.names[label],
        real=figures[0],
        synthetic=figures[1],
        volume_difference=(synthetic_ml - real_ml) / real_ml if real_ml else None,
    )


def _figures(label: int, cases: list[CaseSummary], spacing_mm: tuple[float, float, float]) -> LabelFigures:
    voxels = np.array([case.num_voxels[label] for case in cases])
    components = np.array([case.num_components[label] for case in cases])[voxels > 0]
    return LabelFigures(
        num_cases_with=len(components),
        voxels=_spread(voxels),
        volume_ml=_spread(to_millilitres(voxels, spacing_mm)),
        components=_spread(components) if len(components) else None,
    )


def _spread(values: NDArray[np.generic]) -> Spread:
    numbers = values.astype(np.float64)
    return Spread(mean=numbers.mean(), std=numbers.std(), min=numbers.min(), max=numbers.max())


def _histograms(cases: list[CaseSummary]) -> NDArray[np.float64]:
    return np.stack([case.histogram for case in cases])


def _pictures(
    real: LabelledSet, synthetic: LabelledSet, of_real: list[CaseSummary], of_synthetic: list[CaseSummary]
) -> dict[str, bytes]:
    names = dict(enumerate(real.labels.names))
    real_cases, synthetic_cases = _pictured(real, "real"), _pictured(synthetic, "synthetic")
    num_rows = min(len(real_cases), len(synthetic_cases))
    beside = [case for pair in zip(real_cases[:num_rows], synthetic_cases[:num_rows], strict=True) for case in pair]
    volumes = [_volumes_by_name(real, cases) for cases in (of_real, of_synthetic)]
    histograms = [
        _histograms(cases).mean(axis=0).reshape(NUM_PLOTTED_BINS, -1).sum(axis=1) for cases in (of_real, of_synthetic)
    ]
    return {
        files.MONTAGE: montage(beside, names, synthetic.spacing_mm, num_columns=2),
        files.SYNTHETIC_MONTAGE: montage(synthetic_cases, names, synthetic.spacing_mm, num_columns=2),
        files.VOLUME_PLOT: label_volume_plot(*volumes),
        files.INTENSITY_PLOT: intensity_plot(*histograms),
    }


def _pictured(labelled: LabelledSet, kind: str) -> list[Case]:
    """A few cases, evenly spread over the set: nobody has picked the best."""
    kind = f"PHANTOM, {kind}" if labelled.phantom else kind
    places = np.linspace(0, len(labelled.case_ids) - 1, min(NUM_PICTURED, len(labelled.case_ids))).round().astype(int)
    return [(f"{kind}: {labelled.case_ids[place]}", *labelled.read(labelled.case_ids[place])) for place in places]


def _volumes_by_name(real: LabelledSet, cases: list[CaseSummary]) -> dict[str, list[float]]:
    """{label name: millilitres per case}; where two labels share a name, the id tells them apart."""
    millilitres = to_millilitres(np.stack([case.num_voxels for case in cases]), real.spacing_mm)
    named = zip(real.labels.original_ids, real.labels.names, strict=True)
    return {
        name if real.labels.names.count(name) == 1 else f"{name} ({label_id})": millilitres[:, label].tolist()
        for label, (label_id, name) in enumerate(named)
        if label > 0
    }
