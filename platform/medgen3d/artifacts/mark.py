"""The mark of a synthetic file: machine-readable, in the file itself, with a hash of what it held when it was made.

Where it lies: NIfTI, a comment in the header's extension, and in words in `descrip`; DICOM, Synthetic Data = YES and a
description in the Contributing Equipment Sequence; Parquet, the schema's metadata.
"""

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from medgen3d import __version__

if TYPE_CHECKING:
    from medgen3d.artifacts.manifest import SyntheticSetInfo

Content = Literal["image", "mask", "pair"]
MAX_LENGTH = 1000
"""Characters of a mark as text: what a DICOM description holds."""


class Mark(BaseModel):
    """What a synthetic file says of itself.

    version: Of medgen3d.
    seed: Of the run that drew it.
    content: What of the pair the file holds.
    sha256: `content_hash` of its voxels, or of its pixels.
    affine: The upper 3 x 4 of the affine of its voxels in RAS order, row by row [mm]; None where the format has none.
    """

    model_config = ConfigDict(frozen=True)

    synthetic: Literal[True] = True
    generator: Literal["medgen3d"] = "medgen3d"
    version: str
    pipeline: str
    pipeline_version: int
    seed: int
    phantom: bool
    case_id: str
    content: Content
    sha256: str
    affine: tuple[float, ...] | None = None

    @classmethod
    def of(
        cls,
        info: "SyntheticSetInfo",
        case_id: str,
        content: Content,
        sha256: str,
        affine: NDArray[np.float64] | None = None,
    ) -> Self:
        """The mark of a file of a set."""
        return cls(
            version=__version__,
            pipeline=info.pipeline_name,
            pipeline_version=info.pipeline_version,
            seed=info.seed,
            phantom=info.phantom,
            case_id=case_id,
            content=content,
            sha256=sha256,
            affine=None if affine is None else tuple(affine[:3].round(5).ravel().tolist()),
        )

    @property
    def text(self) -> str:
        """As it stands in a file."""
        return self.model_dump_json()

    @property
    def sentence(self) -> str:
        """For people: who made it."""
        return f"made by medgen3d {self.version}, {self.pipeline} version {self.pipeline_version}, case {self.case_id}"


def mark_in(texts: Iterable[str]) -> Mark | None:
    """The first mark among texts of a file; None if there is none. Nothing of them is trusted."""
    for text in texts:
        if len(text) <= MAX_LENGTH and text.lstrip().startswith("{"):
            try:
                return Mark.model_validate_json(text)
            except ValidationError:
                continue
    return None


def content_hash(*arrays: NDArray[Any]) -> str:
    """SHA-256 of type, shape and values of arrays, whatever their memory order is."""
    digest = hashlib.sha256()
    for array in arrays:
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"{little.dtype.str} {little.shape} ".encode())
        digest.update(little.tobytes())
    return digest.hexdigest()
