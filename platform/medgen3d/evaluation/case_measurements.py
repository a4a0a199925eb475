"""The measures of all cases of an evaluation, each of which is read once, and the instruments that measure them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from medgen3d.artifacts.usefulness_results import UsefulnessResults
from medgen3d.evaluation.agreement import AgreementMeasures, measure_agreement
from medgen3d.evaluation.consistency import ConsistencyMeasures, measure_consistency
from medgen3d.evaluation.extractors import Extractor, JudgeExtractor, ViewFeatures
from medgen3d.evaluation.fidelity import CaseFidelity, measure_fidelity
from medgen3d.evaluation.judge import Judge
from medgen3d.evaluation.plausibility import MaskMeasures, measure_mask
from medgen3d.evaluation.section_result import MapItems
from medgen3d.evaluation.sets import LabelledSet, Sets
from medgen3d.measures.fingerprints import CaseFingerprint, describe_case

if TYPE_CHECKING:  # torch is loaded when a stage is
    from medgen3d_stages.chain import TrainedStage

Measure = TypeVar("Measure")


@dataclass(frozen=True, kw_only=True, slots=True)
class Instruments:
    """The networks and results that an evaluation uses besides the sets; without one, its sections are left out.

    judge: A segmenter that was trained on real pairs only.
    extractor: A pretrained network that describes images, besides the judge's encoder.
    stages: Of the pipeline, by name, to ask them which cases they know.
    usefulness: The trials of a usefulness study.
    """

    judge: Judge | None = None
    extractor: Extractor | None = None
    stages: "Mapping[str, TrainedStage]" = field(default_factory=dict)
    usefulness: UsefulnessResults | None = None

    @property
    def extractors(self) -> list[Extractor]:
        """Those that there are, the judge's first."""
        own: list[Extractor] = [JudgeExtractor(self.judge)] if self.judge else []
        return own + ([self.extractor] if self.extractor else [])


class CaseMeasurements(NamedTuple):
    """The measures of one case, by kind of evaluation; `agreement` is None without a judge."""

    mask: MaskMeasures
    consistency: ConsistencyMeasures
    fidelity: CaseFidelity
    fingerprint: CaseFingerprint
    agreement: AgreementMeasures | None


class SetMeasurements(NamedTuple):
    """The measures of all cases, in the order of each set; of training cases only fingerprints, to find copies by."""

    real: list[CaseMeasurements]
    synthetic: list[CaseMeasurements]
    train: list[CaseFingerprint]

    def both(self, of: Callable[[CaseMeasurements], Measure]) -> tuple[list[Measure], list[Measure]]:
        """One kind of measure of the real and of the synthetic cases."""
        return [of(case) for case in self.real], [of(case) for case in self.synthetic]


def measure_sets(sets: Sets, instruments: Instruments, map_items: MapItems) -> SetMeasurements:
    """Read and measure every case.

    Raises:
        Medgen3dError: A case cannot be read or used; it is named.
    """
    judge, extractors = instruments.judge, instruments.extractors
    real, synthetic = (
        map_items(f"measure {kind} cases", partial(_measure, labelled, judge, extractors), labelled.case_ids)
        for kind, labelled in (("real", sets.real), ("synthetic", sets.synthetic))
    )
    if sets.train is None:
        return SetMeasurements(real, synthetic, [])
    describe = partial(_describe, sets.train, judge)
    return SetMeasurements(real, synthetic, map_items("describe training cases", describe, sets.train.case_ids))


def _measure(
    labelled: LabelledSet, judge: Judge | None, extractors: Sequence[Extractor], case_id: str
) -> CaseMeasurements:
    image, mask = labelled.read(case_id)
    num_labels, spacing_mm = len(labelled.labels), labelled.spacing_mm
    fidelity = measure_fidelity(image, extractors)
    return CaseMeasurements(
        mask=measure_mask(mask, num_labels, spacing_mm),
        consistency=measure_consistency(image, mask, num_labels),
        fidelity=fidelity,
        fingerprint=describe_case(image, mask, _embedding(fidelity.features[0]) if judge else None),
        agreement=measure_agreement(judge, image, mask, num_labels, spacing_mm) if judge else None,
    )


def _describe(labelled: LabelledSet, judge: Judge | None, case_id: str) -> CaseFingerprint:
    image, mask = labelled.read(case_id)
    return describe_case(image, mask, _embedding(JudgeExtractor(judge).features(image)) if judge else None)


def _embedding(features: ViewFeatures) -> NDArray[np.float32]:
    # Each view's vectors are means over the rest of the feature map: their mean is the whole map's, in every view.
    return features["axial"].mean(axis=0)
