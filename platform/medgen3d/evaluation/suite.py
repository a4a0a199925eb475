"""The whole evaluation: every case is measured once, each kind of evaluation makes its section, goals are judged."""

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from medgen3d.artifacts.goals import Goal, judge_metrics
from medgen3d.artifacts.provenance import code_version
from medgen3d.artifacts.report import EvaluatedPipeline, Report
from medgen3d.artifacts.report_files import write_report
from medgen3d.artifacts.report_parts import ReportSection
from medgen3d.core.errors import Medgen3dError
from medgen3d.core.seeds import stream_seed
from medgen3d.evaluation.agreement import agreement
from medgen3d.evaluation.case_measurements import Instruments, SetMeasurements, measure_sets
from medgen3d.evaluation.consistency import consistency
from medgen3d.evaluation.fidelity import ExtractorIdentity, fidelity
from medgen3d.evaluation.memorisation import memorisation
from medgen3d.evaluation.montages import pictures
from medgen3d.evaluation.plausibility import plausibility
from medgen3d.evaluation.section_result import MapItems, SectionResult, map_here
from medgen3d.evaluation.sets import Sets
from medgen3d.evaluation.usefulness import usefulness

log = logging.getLogger(__name__)
TITLES = {
    "pictures": "Pictures",
    "agreement": "Agreement of image and mask",
    "fidelity": "Fidelity",
    "plausibility": "Plausibility of masks",
    "consistency": "Through-plane consistency",
    "novelty": "Novelty",
    "usefulness": "Usefulness for training",
}
"""The sections in the order of the report."""
Maker = Callable[[np.random.Generator], SectionResult]


def evaluate(
    sets: Sets, instruments: Instruments, goals: Sequence[Goal], out: Path, map_items: MapItems = map_here
) -> Report:
    """Compare the synthetic cases with the real ones and write the report.

    Args:
        sets: What is compared.
        instruments: What it is measured with.
        goals: What the metrics are held to.
        out: The report's folder; files of a former report are replaced.
        map_items: Spreads the work over cases.

    Raises:
        Medgen3dError: A case cannot be read or used; it is named before anything that takes long begins.
    """
    reasons = missing(sets, instruments)
    measured = measure_sets(sets, instruments, map_items)
    makers = _makers(sets, instruments, measured, map_items)
    findings = [_not_run(name, reasons[name]) if name in reasons else _section(name, makers[name]) for name in TITLES]
    report = _report(sets, [each.section for each in findings], goals)
    write_report(out, report, {name: png for each in findings for name, png in each.pictures.items()})
    return report


def missing(sets: Sets, instruments: Instruments) -> dict[str, str]:
    """{section: why it cannot be made, and what to give}."""
    reasons = {}
    if instruments.judge is None:
        reasons["agreement"] = "It needs a segmenter trained on real pairs: leave out `--segmenter none`."
    if sets.train is None:
        reasons["novelty"] = "It needs the cases that the pipeline was trained on: give them with --train."
    elif sets.train.prepared and sets.train.prepared.digest != sets.info.dataset_digest:
        reasons["novelty"] = (
            f"The pipeline was trained on the prepared set with digest {sets.info.dataset_digest[:12]}, the training "
            f"cases are of the set with digest {sets.train.prepared.digest[:12]}: give the other set with --train."
        )
    if instruments.usefulness is None:
        reasons["usefulness"] = "It needs a study: give the folder of `medgen3d usefulness` with --usefulness."
    return reasons


def _makers(sets: Sets, instruments: Instruments, measured: SetMeasurements, map_items: MapItems) -> dict[str, Maker]:
    """{section: what makes it}, for whatever there is."""
    labels, judge, results = sets.real.labels, instruments.judge, instruments.usefulness
    identities = [ExtractorIdentity(each.name, each.weights_sha256) for each in instruments.extractors]
    makers: dict[str, Maker] = {
        "pictures": lambda _rng: pictures(sets.real, sets.synthetic),
        "fidelity": lambda rng: fidelity(*measured.both(lambda case: case.fidelity), identities, rng),
        "plausibility": lambda rng: plausibility(*measured.both(lambda case: case.mask), labels, rng),
        "consistency": lambda rng: consistency(*measured.both(lambda case: case.consistency), rng),
    }
    if judge:
        real, synthetic = ([case.agreement for case in cases if case.agreement] for cases in measured[:2])
        makers["agreement"] = lambda rng: agreement(real, synthetic, labels, rng, judge.name)
    if train := sets.train:
        makers["novelty"] = lambda rng: memorisation(sets, train, measured, instruments.stages, map_items, rng)
    if results:
        makers["usefulness"] = lambda _rng: usefulness(results)
    return makers


def _section(name: str, make: Maker) -> SectionResult:
    """The same measures always give the same metrics."""
    try:
        return make(np.random.default_rng(stream_seed(0, name)))
    except Medgen3dError:
        raise
    except Exception as error:  # whatever went wrong: the metrics of the other sections must not be lost with it
        log.exception("The section %s failed", name)
        return _not_run(name, f"It failed with {type(error).__name__}: {error}")


def _not_run(name: str, reason: str) -> SectionResult:
    return SectionResult(section=ReportSection(name=name, title=TITLES[name], about="", not_run=reason))


def _report(sets: Sets, sections: list[ReportSection], goals: Sequence[Goal]) -> Report:
    metrics = [metric for section in sections for metric in section.metrics]
    return Report(
        created=datetime.now(UTC).replace(microsecond=0),
        code_version=code_version(),
        spacing_mm=sets.synthetic.spacing_mm,
        real=sets.real.description,
        synthetic=sets.synthetic.description,
        train=sets.train.description if sets.train else None,
        pipeline=EvaluatedPipeline.of(sets.info),
        verdicts=judge_metrics(goals, metrics),
        sections=sections,
    )
