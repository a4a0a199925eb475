"""Verify: finds everything that is wrong with one pair in one pass, and the facts that preparing it needs."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from medgen3d.artifacts import dicom, nifti
from medgen3d.artifacts.intensity import Intensity, IntensityRule
from medgen3d.artifacts.nifti import VolumeFile
from medgen3d.artifacts.nifti_geometry import UNKNOWN
from medgen3d.core.errors import VolumeFileError
from medgen3d.core.volume import Volume
from medgen3d.ingest.intensity_checks import check_window
from medgen3d.ingest.problems import CaseProblem, Kind
from medgen3d.ingest.sources import Pair

_SPACING_TOLERANCE = 1e-3
"""Largest relative difference between the voxel sizes of image and mask."""
_PLACE_TOLERANCE = 0.05
"""Largest distance between a voxel of the image and the same voxel of the mask [voxels]."""
_SCALING_ERROR = 1e-3
"""Largest distance of a label from its whole number where the file is scaled."""
_NUM_EXAMPLES = 5
"""Values that a sentence cites."""


class Rules(BaseModel):
    """The rules that every case of one data set is held to.

    labels: None where the ids found shall be declared.
    ignored: Id of voxels that nobody labelled.
    """

    model_config = ConfigDict(frozen=True)

    labels: tuple[int, ...] | None
    ignored: int | None = None
    intensity: IntensityRule


class CaseFacts(BaseModel):
    """The facts about a case that has been read.

    shape, spacing_mm: (D, H, W) on the RAS grid.
    is_oriented: Whether the image says how it lies in the patient.
    is_whole: Whether all its values are whole numbers.
    notes: Sentences about what is ambiguous or suspicious.
    """

    model_config = ConfigDict(frozen=True)

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    axis_codes: str
    is_oriented: bool = True
    is_whole: bool = False
    intensity: Intensity
    labels_found: tuple[int, ...]
    sha256: dict[str, str]
    notes: tuple[str, ...] = ()


class Verification(BaseModel):
    """The outcome for one pair: its facts, or why it cannot be used."""

    model_config = ConfigDict(frozen=True)

    case: str
    facts: CaseFacts | None
    problems: tuple[CaseProblem, ...]


def read_image(path: Path) -> VolumeFile:
    """A NIfTI file, a folder with one DICOM series, or a multi-frame DICOM file.

    Raises:
        VolumeFileError: It cannot be read.
    """
    is_dicom = path.is_dir() or path.name.lower().endswith(dicom.SUFFIX)
    return dicom.read_series(path) if is_dicom else nifti.read(path)


def verify(pair: Pair, root: Path, rules: Rules) -> Verification:
    """Read one pair and find all its problems; never raises for bad data.

    Args:
        pair: The files.
        root: Folder of the source; file names in facts are relative to it.
        rules: What the case is held to.
    """
    table = _Table(pair.case)
    image = table.read(pair.image, "image")
    mask = table.read(pair.mask, "mask")
    intensity = table.check_image(image.volume, rules) if image else None
    labels = table.check_mask(mask, rules) if mask else ()
    if image and mask:
        table.check_grids(image.volume, mask.volume)
    if image and intensity and rules.intensity.kind == "hu_window":
        table.check_window(image.volume, mask, intensity)
    if table.problems or not (image and mask and intensity):
        return Verification(case=pair.case, facts=None, problems=tuple(table.problems))
    facts = CaseFacts(
        shape=image.volume.voxels.shape,
        spacing_mm=image.volume.spacing_mm,
        axis_codes=image.axis_codes,
        is_oriented=UNKNOWN not in image.notes,
        is_whole=bool((np.rint(image.volume.voxels) == image.volume.voxels).all()),
        intensity=intensity,
        labels_found=labels,
        sha256={path.relative_to(root).as_posix(): _sha256(path) for path in (pair.image, pair.mask)},
        notes=(*image.notes, *(f"mask: {note}" for note in mask.notes), *table.notes),
    )
    return Verification(case=pair.case, facts=facts, problems=())


def label_voxels(mask: VolumeFile) -> NDArray[np.generic]:
    """The voxels of a mask [D, H, W]; whole numbers again where scaling by the file's header left rounding errors."""
    voxels = mask.volume.voxels
    if not mask.is_scaled:
        return voxels
    whole = np.rint(voxels)
    return np.where(np.abs(voxels - whole) <= _SCALING_ERROR, whole, voxels)


class _Table:
    """The problems of one case, as they are found."""

    def __init__(self, case: str) -> None:
        self.case = case
        self.problems: list[CaseProblem] = []
        self.notes: list[str] = []

    def add(self, kind: Kind, found: str, expected: str, remedy: str) -> None:
        self.problems.append(CaseProblem(case=self.case, kind=kind, found=found, expected=expected, remedy=remedy))

    def read(self, path: Path, role: str) -> VolumeFile | None:
        if not path.exists():
            self.add("missing partner", f"no {role} {path.name}", "an image and a mask", f"Add {path}.")
            return None
        try:
            return read_image(path) if role == "image" else nifti.read(path)
        except VolumeFileError as error:
            file, found, expected, remedy = error.args
            self.add("unreadable file", f"{role} {file}: {found}", expected, remedy)
            return None

    def check_image(self, image: Volume, rules: Rules) -> Intensity | None:
        """The intensity map of the image, None where it has none."""
        if self._has_nan(image, "image"):
            return None
        intensity = rules.intensity.map_of(image.voxels)
        low, high = intensity.low, intensity.high
        darkest, brightest = np.clip([image.voxels.min(), image.voxels.max()], low, high)
        if darkest == brightest:
            found, expected = f"one value, {darkest:g}, between {low:g} and {high:g}", "different intensities"
            remedy = "Check the export of the image, or choose another hu_window or percentiles."
            self.add("constant intensity", found, expected, remedy)
            return None
        return intensity

    def check_window(self, image: Volume, mask: VolumeFile | None, window: Intensity) -> None:
        """Whether the intensities of a CT are Hounsfield units, and those of what is labelled within the window."""
        fits = mask is not None and mask.volume.voxels.shape == image.voxels.shape
        labelled = image.voxels[mask.volume.voxels != 0] if mask and fits else None
        finding = check_window(image.voxels, labelled, window)
        if finding and finding.kind:
            self.add(finding.kind, finding.found, finding.expected, finding.remedy)
        elif finding:
            self.notes.append(finding.found)

    def check_mask(self, mask: VolumeFile, rules: Rules) -> tuple[int, ...]:
        """The label ids in the mask, as far as they are whole numbers."""
        if self._has_nan(mask.volume, "mask"):
            return ()
        values = np.unique(label_voxels(mask))
        whole = values == np.round(values)
        if not whole.all():
            remedy = "Export the mask again with nearest-neighbour interpolation and as integers."
            self.add("non-integer labels", _examples(values[~whole]), "whole label ids", remedy)
        labels = tuple(int(value) for value in values[whole])
        if rules.ignored in labels:
            found, remedy = f"the id {rules.ignored} ('ignore')", "Label these voxels, or leave the case out."
            self.add("unlabelled voxels", found, "masks that are labelled throughout", remedy)
        declared = set(rules.labels) if rules.labels is not None else set(range(np.iinfo(np.uint16).max + 1))
        declared |= {rules.ignored} if rules.ignored is not None else set()
        undeclared = sorted(set(labels) - declared)
        if undeclared:
            expected = _examples(np.array(rules.labels)) if rules.labels is not None else "ids from 0 to 65535"
            remedy = "Declare the ids in dataset.json or with --labels, or correct the mask."
            self.add("undeclared labels", _examples(np.array(undeclared)), expected, remedy)
        if set(labels) <= {0} and whole.all():
            self.add("empty mask", "background only", "at least one labelled voxel", "Label the case, or remove it.")
        return labels

    def check_grids(self, image: Volume, mask: Volume) -> None:
        """Image and mask must cover the same voxels; both are in RAS, so that a flipped file is no mismatch."""
        remedy = "Resample the mask onto the image grid (nearest neighbour)."
        if image.voxels.shape != mask.voxels.shape:
            found, expected = f"mask of {_by(mask.voxels.shape)} voxels", f"{_by(image.voxels.shape)} as the image"
            self.add("shape mismatch", found, expected, remedy)
        if not np.allclose(image.spacing_mm, mask.spacing_mm, rtol=_SPACING_TOLERANCE, atol=0):
            found, expected = f"mask of {_by(mask.spacing_mm)} mm", f"{_by(image.spacing_mm)} mm as the image"
            self.add("spacing mismatch", found, expected, remedy)
        distance = _largest_distance(image, mask)
        if distance > _PLACE_TOLERANCE:
            found, expected = f"a mask that lies up to {distance:.2f} voxels off the image", "the same place"
            self.add("affine mismatch", found, expected, remedy + " If only the header is wrong, copy the image's.")

    def _has_nan(self, volume: Volume, role: str) -> bool:
        num_bad = volume.voxels.size - int(np.isfinite(volume.voxels).sum())
        if num_bad:
            found, expected = f"{num_bad} voxels of the {role}", "finite numbers"
            self.add("NaN or infinity", found, expected, "Replace these values, or export the file again.")
        return num_bad > 0


def _largest_distance(image: Volume, mask: Volume) -> float:
    """Distance by which the mask's grid strays from the image's at a corner of the image [smallest voxel sides].

    Measured with the image's voxel sizes, so that a wrong spacing is reported as that and not as a wrong place too.
    """
    sides = np.array(image.spacing_mm)[::-1]
    moved = mask.affine.copy()
    moved[:3, :3] *= sides / np.array(mask.spacing_mm)[::-1]
    ends = np.array(image.voxels.shape)[::-1] - 1
    corners = np.array([[*(ends * corner), 1.0] for corner in np.ndindex(2, 2, 2)])
    return float(np.linalg.norm(corners @ (moved - image.affine).T, axis=1).max() / sides.min())


def _sha256(path: Path) -> str:
    """Of a file, or of a folder's files and their names."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for file_path in sorted(path.iterdir()):
        digest.update(file_path.name.encode() + b"\0" + bytes.fromhex(_sha256(file_path)))
    return digest.hexdigest()


def _examples(values: NDArray[np.generic]) -> str:
    cited = ", ".join(f"{value:g}" for value in values[:_NUM_EXAMPLES])
    return f"{cited} and {len(values) - _NUM_EXAMPLES} more" if len(values) > _NUM_EXAMPLES else cited


def _by(sizes: tuple[float, ...]) -> str:
    return " x ".join(f"{size:g}" for size in sizes)
