"""The gates that a drawn case must pass before it is written. A gate without limits in the pipeline does not run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from medgen3d.artifacts.bundle import Bundle, BundleDataset
from medgen3d.artifacts.bundle_weights import WEIGHTS
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.provenance import config_hash
from medgen3d.core.hashing import sha256_of
from medgen3d.measures.fingerprints import CaseFingerprint, describe_case, nearest
from medgen3d.measures.limits import CaseLimits, NearCopyLimits, beyond_limits
from medgen3d.measures.overlap import mean_overlap
from medgen3d.synthesis.batch_codec import InFlightCase

if TYPE_CHECKING:  # torch is loaded in workers
    from medgen3d_stages.chain import TrainedStage

LIMITS, ALIGNMENT, NEAR_COPY = "limits", "alignment", "near copy"


@dataclass(frozen=True, kw_only=True, slots=True)
class GateRules:
    """The limits that cases are held to.

    limits: Of masks and near copies, learned from the training data; None: neither gate runs.
    segmenter: Trained on real pairs; None: alignment is not judged.
    min_alignment: Smallest mean Dice of its mask and the case's own.
    train: The training data, among which near copies are looked for; None: they are not.
    """

    limits: CaseLimits | None = None
    segmenter: Bundle | None = None
    min_alignment: float = 0.0
    train: PreparedSet | None = None

    @property
    def near_copy(self) -> NearCopyLimits | None:
        """Limits of the gate that looks for near copies; None: it does not run."""
        return self.limits.near_copy if self.limits and self.train else None

    @property
    def digests(self) -> dict[str, str]:
        """Gate that runs -> SHA-256 of all that its verdicts depend on."""
        found = {}
        if self.limits:
            found[LIMITS] = config_hash({"limits": self.limits.model_dump(mode="json", exclude={"near_copy"})})
        if self.segmenter:
            weights = sha256_of(self.segmenter.root / WEIGHTS)
            found[ALIGNMENT] = config_hash({"weights": weights, "at_least": self.min_alignment})
        if self.near_copy and self.train:
            limits = self.near_copy.model_dump(mode="json")
            found[NEAR_COPY] = config_hash({"train": self.train.digest, "limits": limits, "by": "image"})
        return found


class Gates:
    """The gates in a worker.

    Args:
        rules: What cases are held to.
        dataset: What the pipeline was trained on.
        train: Fingerprints of the training cases, if near copies are looked for.
        device: Of the segmenter.

    Raises:
        ArtifactError: The segmenter cannot be used.
    """

    def __init__(
        self, rules: GateRules, dataset: BundleDataset, train: Sequence[CaseFingerprint], device: str = "cpu"
    ) -> None:
        self.rules, self.dataset, self.train = rules, dataset, train
        self.segmenter = rules.segmenter.trained_stage(device) if rules.segmenter else None

    def judge(self, case: InFlightCase) -> InFlightCase:
        """The case with the gates' scores, and with the reasons for which it is rejected."""
        if not case.is_sound:
            return case
        if self.rules.limits:
            case = self._within_limits(case, self.rules.limits)
        if self.segmenter:
            case = self._aligned(case, self.segmenter)
        if self.rules.near_copy:
            case = self._new(case, self.rules.near_copy)
        return case

    def _within_limits(self, case: InFlightCase, limits: CaseLimits) -> InFlightCase:
        table, spacing_mm = self.dataset.label_table, self.dataset.spacing_mm
        reasons = {} if case.plan.mask else beyond_limits(case.mask, limits, table, spacing_mm)
        case = replace(case, scores=case.scores | {LIMITS: float(not reasons)})
        return replace(case, rejections=case.rejections | reasons)

    def _aligned(self, case: InFlightCase, segmenter: "TrainedStage") -> InFlightCase:
        from medgen3d_stages.segmenter.sampler import SegmentRequest

        found = segmenter.sample([SegmentRequest(image=case.image)], [0])[0]
        score = mean_overlap(found, case.mask, len(self.dataset.label_table))
        case = replace(case, scores=case.scores | {ALIGNMENT: score})
        if score >= self.rules.min_alignment:
            return case
        least = self.rules.min_alignment
        return case.rejected(
            ALIGNMENT, f"the segmenter finds the mask in the image with Dice {score:.2f}, expected {least:g}"
        )

    def _new(self, case: InFlightCase, limits: NearCopyLimits) -> InFlightCase:
        found = nearest(describe_case(case.image, case.mask), self.train)
        scores = {"near copy, image": found.image_correlation, "near copy, mask": found.mask_dice}
        case = replace(case, scores=case.scores | scores)
        if found.image_correlation <= limits.image_correlation:
            return case
        return case.rejected(
            NEAR_COPY,
            f"its image is closer to a training image than 99 % of new ones: correlation {found.image_correlation:.3f} "
            f"beyond {limits.image_correlation:.3f} (its mask has Dice {found.mask_dice:.3f} with the nearest one, "
            f"99 % of new masks at most {limits.mask_dice:.3f})",
        )
