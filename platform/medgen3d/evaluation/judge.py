"""The judge: a segmenter that was trained on real pairs only, and is asked what it sees in an image."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medgen3d.artifacts.bundle import CONFIG, Bundle
from medgen3d.artifacts.bundle_weights import REMEDY, WEIGHTS
from medgen3d.core.errors import ArtifactError
from medgen3d.core.hashing import sha256_of

if TYPE_CHECKING:  # torch is loaded when a segmenter is
    from medgen3d_stages.chain import TrainedStage


class Judge(Protocol):
    """A segmenter as evaluation uses it."""

    @property
    def name(self) -> str:
        """What the report calls it."""
        ...

    @property
    def weights_sha256(self) -> str:
        """Of its weights file."""
        ...

    def segment(self, image: NDArray[np.floating]) -> NDArray[np.uint16]:
        """Image [D, h, w] in [-1, 1] -> mask [D, h, w] of contiguous ids."""
        ...

    def features(self, image: NDArray[np.floating]) -> NDArray[np.float32]:
        """Image [D, h, w] in [-1, 1] -> the encoder's coarsest feature map [C, d, h', w']."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmenterJudge:
    """A trained segmenter as a judge; it travels to other processes with its weights."""

    name: str
    weights_sha256: str
    trained: "TrainedStage"

    def segment(self, image: NDArray[np.floating]) -> NDArray[np.uint16]:
        from medgen3d_stages.segmenter.sampler import SegmentRequest

        mask: NDArray[np.uint16] = self.trained.sample([SegmentRequest(image=image)], [0])[0]
        return mask

    def features(self, image: NDArray[np.floating]) -> NDArray[np.float32]:
        from medgen3d_stages.segmenter.sampler import encoder_features

        network: Any = self.trained.networks["segmenter"]
        config: Any = self.trained.stage.config  # type: ignore[attr-defined]
        return encoder_features(network, image, config)


def judge_of(bundle: Bundle, name: str) -> SegmenterJudge:
    """The judge in a bundle.

    Args:
        bundle: Of the stage `segmenter`.
        name: What the report calls it.

    Raises:
        ArtifactError: The bundle holds another stage, or cannot be used.
    """
    if bundle.info.stage != "segmenter":
        raise ArtifactError(str(bundle.root / CONFIG), f"a {bundle.info.stage}", "a segmenter", REMEDY)
    return SegmenterJudge(
        name=name, weights_sha256=sha256_of(bundle.root / WEIGHTS), trained=bundle.trained_stage("cpu")
    )
