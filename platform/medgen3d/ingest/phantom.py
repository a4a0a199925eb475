"""Labelled phantoms: seeded CT-like chests and MR-like heads, for the demo and for tests. They are nobody's anatomy.

Each case has a random stream of its own, so the same seed gives the same bytes and case 7 does not depend on case 6.
Structures are simple bodies in millimetres (x right, y anterior, z superior, 0 in the middle of the scan), seen through
a smooth random deformation; sizes, contrast, noise and the number of slices vary from case to case.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from medgen3d.artifacts import nifti
from medgen3d.core.errors import ConfigError, DataError
from medgen3d.core.seeds import stream_seed
from medgen3d.core.volume import Volume, affine_from_spacing

Kind = Literal["thorax_ct", "brain_mr"]
KINDS: tuple[str, ...] = get_args(Kind)
LABELS: dict[str, dict[int, str]] = {  # with gaps, as in users' own data
    "thorax_ct": {1: "body", 2: "left lung", 3: "right lung", 5: "heart", 6: "aorta", 9: "spine"},
    "brain_mr": {1: "grey matter", 2: "white matter", 4: "ventricles", 17: "left hippocampus", 53: "right hippocampus"},
}
DEFAULT_SIZE = (32, 48, 48)

_FIELD_OF_VIEW_MM = {"thorax_ct": (256.0, 360.0, 360.0), "brain_mr": (160.0, 216.0, 216.0)}
_AXIS_CODES = {"thorax_ct": "LPS", "brain_mr": "RAS"}  # CT as it comes from DICOM: ingest must bring it to RAS
_LEFT, _RIGHT = -1, 1

Field = NDArray[np.float64]
Mask = NDArray[np.uint8]
Point = tuple[float | Field, float | Field, float | Field]


def make_phantom(
    kind: str, rng: np.random.Generator, size: tuple[int, int, int] = DEFAULT_SIZE
) -> tuple[Volume, Volume]:
    """One case.

    Args:
        kind: One of `KINDS`.
        rng: Decides everything that varies.
        size: (D, H, W) of a typical case [voxels], each at least 8. The field of view is fixed, so size sets the
            spacing; a case has up to an eighth fewer or more slices than D.

    Returns:
        Image (int16: HU for CT, arbitrary units for MR) and mask (uint8, ids of `LABELS`) on the same grid.

    Raises:
        ConfigError: The kind is unknown or the size too small.
    """
    _check(kind, size)
    z_mm, y_mm, x_mm = (length / count for length, count in zip(_FIELD_OF_VIEW_MM[kind], size, strict=True))
    depth = size[0] + int(rng.integers(-(size[0] // 8), size[0] // 8 + 1))
    body = _Body(rng, (depth, size[1], size[2]), (z_mm, y_mm, x_mm))
    image, mask = _thorax(body) if kind == "thorax_ct" else _brain(body)
    affine = affine_from_spacing((z_mm, y_mm, x_mm))
    affine[:3, 3] = body.first_voxel_mm
    return Volume(voxels=np.rint(image).astype(np.int16), affine=affine), Volume(voxels=mask, affine=affine)


def write_phantoms(
    kind: str,
    count: int,
    seed: int,
    out: Path,
    progress: Callable[[int, int], None] = lambda _done, _count: None,
    size: tuple[int, int, int] = DEFAULT_SIZE,
) -> None:
    """Write a data set of phantoms in Medical Segmentation Decathlon layout, marked as such in `dataset.json`.

    Args:
        kind: One of `KINDS`.
        count: How many cases, at least 1.
        seed: Same seed, same files.
        out: A folder that is empty or does not exist.
        progress: Called with (cases written, count) after each case.
        size: As in `make_phantom`.

    Raises:
        ConfigError: The kind, the count or the size is not valid.
        DataError: The folder is not empty or cannot be written.
    """
    _check(kind, size)
    if count < 1:
        raise ConfigError(f"the number of phantoms must be at least 1, got {count}")
    names = [f"{kind}_{number:04d}.nii.gz" for number in range(count)]
    _make_folders(out)
    for number, name in enumerate(names):
        rng = np.random.default_rng(stream_seed(seed, "phantom", kind, number))
        image, mask = make_phantom(kind, rng, size)
        nifti.write(out / "imagesTr" / name, image, _AXIS_CODES[kind])
        nifti.write(out / "labelsTr" / name, mask, _AXIS_CODES[kind])
        progress(number + 1, count)
    (out / "dataset.json").write_text(json.dumps(_description(kind, names, seed), indent=2) + "\n")


def _check(kind: str, size: tuple[int, int, int]) -> None:
    if kind not in KINDS:
        raise ConfigError(f"unknown kind of phantom {kind!r}; there are {', '.join(KINDS)}")
    if min(size) < 8:
        raise ConfigError(f"a phantom needs at least 8 voxels along every axis, got {size}")


def _make_folders(out: Path) -> None:
    try:
        if out.exists() and any(out.iterdir()):
            raise DataError(f"{out} is not empty; name a new folder for the phantoms")
        for folder in ("imagesTr", "labelsTr"):
            (out / folder).mkdir(parents=True)
    except OSError as error:
        raise DataError(f"cannot write phantoms to {out}: {error.strerror}") from error


def _description(kind: str, names: list[str], seed: int) -> dict[str, object]:
    return {
        "name": f"phantom_{kind}",
        "phantom": True,
        "description": f"Synthetic phantoms made by medgen3d, kind {kind}, seed {seed}; no patient was imaged",
        "licence": "CC0-1.0",
        "tensorImageSize": "3D",
        "modality": {"0": "CT" if kind == "thorax_ct" else "MRI"},
        "labels": {"0": "background"} | {str(label): name for label, name in LABELS[kind].items()},
        "numTraining": len(names),
        "numTest": 0,
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names],
        "test": [],
    }


class _Body:
    """The voxels' places in one patient's body, and the random fields over them; all arrays are [D, H, W].

    x, y, z: Millimetres after the smooth deformation and the patient's own size.
    """

    def __init__(self, rng: np.random.Generator, shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> None:
        self.rng, self.shape, self.spacing_mm = rng, shape, spacing_mm
        starts = [-(count - 1) * step / 2 for count, step in zip(shape, spacing_mm, strict=True)]
        starts = [start + rng.uniform(-9, 9) for start in starts]  # nobody lies exactly where the last one lay
        self.first_voxel_mm = starts[::-1]
        places = [start + step * np.arange(count) for start, step, count in zip(starts, spacing_mm, shape, strict=True)]
        patient = rng.uniform(0.92, 1.08)
        self.z, self.y, self.x = (
            place / patient / rng.uniform(0.97, 1.03) + 4.0 * self.smooth(50.0)
            for place in np.meshgrid(*places, indexing="ij")
        )

    def smooth(self, length_mm: float) -> Field:
        """A random field of mean 0 and deviation 1 whose features are about `length_mm` wide."""
        noise = gaussian_filter(self.rng.standard_normal(self.shape), [length_mm / step for step in self.spacing_mm])
        return (noise - noise.mean()) / noise.std()

    def white(self) -> Field:
        return self.rng.standard_normal(self.shape)

    def reach(self, centre_mm: Point, radii_mm: tuple[float, float, float]) -> Field:
        """Distance from the centre in units of the radii: below 1 within the ellipsoid. (x, y, z)."""
        axes = zip((self.x, self.y, self.z), centre_mm, radii_mm, strict=True)
        return np.sqrt(sum(((place - centre) / radius) ** 2 for place, centre, radius in axes))

    def along(self, path_mm: list[tuple[float, float, float]]) -> Field:
        """Distance to a path of straight pieces [mm]."""
        nearest = np.full(self.shape, np.inf)
        for start, end in zip(np.asarray(path_mm[:-1]), np.asarray(path_mm[1:]), strict=True):
            piece = end - start
            offset = [self.x - start[0], self.y - start[1], self.z - start[2]]
            share = np.clip(sum(o * p for o, p in zip(offset, piece, strict=True)) / (piece @ piece), 0, 1)
            square = sum((o - share * p) ** 2 for o, p in zip(offset, piece, strict=True))
            nearest = np.minimum(nearest, square)
        return np.sqrt(nearest)


def _thorax(body: _Body) -> tuple[Field, Mask]:
    """A chest with the diaphragm below and the neck above: lungs and heart appear at some levels only."""
    x, y, z, rng = body.x, body.y, body.z, body.rng
    neck = 1 / (1 + np.exp((100 - z) / 10))  # 0 in the chest, 1 in the neck
    depth = (np.abs(x / 150) ** 2.5 + np.abs(y / 102) ** 2.5) ** 0.4 / (1 - 0.35 * neck)
    inside = depth < 1
    lungs = {side: _lung(body, side) for side in (_LEFT, _RIGHT)}
    heart = body.reach((-20 + 0.15 * z, 24 - 0.2 * x, -28 + 0.3 * x), _vary(rng, (50, 38, 46)))
    arch = rng.uniform(48, 66)
    aorta = body.along(
        [(-20, -46, -200), (-20, -46, arch - 20), (-12, -26, arch), (4, 4, arch), (12, 18, arch - 24), (4, 22, 0)]
    )
    behind = y + 70 - 34 * neck  # distance in front of the spine's middle [mm]
    spine = (np.hypot(x / 20, behind / 17) < 1) | ((np.abs(x) < 7) & (behind > -24) & (behind < 0))

    mask = np.zeros(body.shape, dtype=np.uint8)
    mask[inside] = 1
    for side, label in ((_LEFT, 2), (_RIGHT, 3)):
        mask[inside & lungs[side]] = label
    mask[inside & (heart < 1)] = 5
    mask[inside & (aorta < rng.uniform(12, 15))] = 6
    mask[inside & spine] = 9
    return _thorax_hu(body, mask, depth), mask


def _lung(body: _Body, side: int) -> NDArray[np.bool_]:
    """Inside the ribs and above the dome of the diaphragm, which stands higher on the right, over the liver."""
    centre_x, floor = side * body.rng.uniform(62, 70), body.rng.uniform(-82, -68) + (8 if side == _RIGHT else 0)
    dome = floor + 22 * (1 - ((body.x - centre_x) / 55) ** 2 - ((body.y + 5) / 80) ** 2)
    return (body.reach((centre_x, 0, 4), _vary(body.rng, (50, 72, 98))) < 1) & (body.z > dome)


def _thorax_hu(body: _Body, mask: Mask, depth: Field) -> Field:
    rng, contrast = body.rng, body.rng.uniform(0, 220)  # how much of the contrast agent has arrived [HU]
    hu = np.full(body.shape, -1000.0)
    soft, texture = mask > 0, body.smooth(9.0)
    hu[soft] = 45 + 10 * texture[soft]
    liver = (body.reach((50, 0, -110), (95, 90, 75)) < 1) & (mask == 1)
    hu[liver] += 20 + 0.3 * contrast
    ribs = (np.cos(2 * np.pi * (body.z - 0.4 * body.y) / 28) > 0.3) & (np.abs(depth - 0.86) < 0.05) & (body.z > -90)
    hu[ribs & soft] = 320
    hu[soft & (depth > 0.92)] = -100 + 10 * texture[soft & (depth > 0.92)]  # fat under the skin
    vessels = np.maximum(body.smooth(7.0), 0)
    lungs = (mask == 2) | (mask == 3)
    hu[lungs] = (rng.uniform(-870, -800) - 0.5 * body.y + 110 * vessels)[lungs]  # denser where the patient lies
    hu[mask == 5] = 40 + 0.8 * contrast
    hu[mask == 6] = 45 + contrast
    vertebrae = 160 + 90 * np.cos(2 * np.pi * body.z / 30)
    hu[mask == 9] = vertebrae[mask == 9]
    hu[(np.hypot(body.x, body.y + 8) < 8) & (mask == 1) & (body.z > 30)] = -950  # trachea, unlabelled
    return np.clip(gaussian_filter(hu, 0.4) + rng.uniform(10, 25) * body.white(), -1024, 3071)


def _brain(body: _Body) -> tuple[Field, Mask]:
    """A head from the cerebellum to the crown; ventricles and hippocampi appear at some levels only."""
    rng = body.rng
    folds = 0.045 * body.smooth(9.0)
    cerebrum = body.reach((0, 0, 8), _vary(rng, (64, 80, 58))) + folds
    cerebellum = body.reach((0, -44, -44), _vary(rng, (42, 28, 24))) + folds
    brain = np.minimum(cerebrum, cerebellum)

    mask = np.zeros(body.shape, dtype=np.uint8)
    mask[brain < 1] = 1
    mask[(cerebrum < 0.84) | (cerebellum < 0.7)] = 2
    enlarged = rng.uniform(0.85, 1.35)
    for side, hippocampus in ((_LEFT, 17), (_RIGHT, 53)):
        bent = side * (11 + 0.006 * body.y**2)
        mask[(body.reach((bent, 0, 16), (7 * enlarged, 32, 11 * enlarged)) < 1) & (mask == 2)] = 4
        along = (side * 28, -10, -16 - 0.25 * (body.y + 10))
        mask[(body.reach(along, _vary(rng, (8.5, 22, 8.5))) < 1) & (brain < 1)] = hippocampus
    return _brain_signal(body, mask, brain), mask


def _brain_signal(body: _Body, mask: Mask, brain: Field) -> Field:
    """T1-like: bright white matter, dark fluid; bias field, Rician noise and the scanner's own units."""
    rng, head = body.rng, body.reach((0, 0, -10), (78, 94, 96))
    signal = np.where(head < 1, 0.85, 0.0)  # scalp
    signal[head < 0.93] = 0.45  # muscle
    signal[(brain < 1.22) & (head < 0.95)] = 0.08  # skull
    signal[(brain < 1.1) & (head < 0.93)] = 0.22  # fluid around the brain
    for label, level in {1: 0.62, 2: 0.95, 4: 0.2, 17: 0.68, 53: 0.68}.items():
        signal[mask == label] = level + rng.uniform(-0.02, 0.02)
    signal = gaussian_filter(signal * (1 + 0.03 * body.smooth(8.0)), 0.4) * np.exp(0.12 * body.smooth(60.0))
    noise = rng.uniform(0.015, 0.035)
    magnitude = np.hypot(signal + noise * body.white(), noise * body.white())
    return np.clip(magnitude * rng.uniform(300, 3000), 0, np.iinfo(np.int16).max)


def _vary(rng: np.random.Generator, radii_mm: tuple[float, float, float]) -> tuple[float, float, float]:
    x, y, z = (radius * rng.uniform(0.92, 1.08) for radius in radii_mm)
    return x, y, z
