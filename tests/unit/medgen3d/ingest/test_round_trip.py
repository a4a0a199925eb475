"""Round trip: what goes in through ingest and out as a written pair lies where it lay and is what it was.

Readers that the product does not use say so: SimpleITK of the source, nibabel and SimpleITK of the written files.
"""

import gzip
import json
import tempfile
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import strategies as st

from medgen3d.artifacts.bundle import BundleDataset
from medgen3d.artifacts.manifest import SyntheticSetInfo
from medgen3d.artifacts.prepared_set import PreparedSet, write_info, write_prepared_case
from medgen3d.artifacts.synthetic_set import open_for_writing, write_case
from medgen3d.config.experiment import IngestConfig
from medgen3d.core.volume import Volume
from medgen3d.ingest.plan import make_ingest_plan
from medgen3d.ingest.prepare import prepare
from medgen3d.ingest.request import make_request
from medgen3d.ingest.sources import read_source
from medgen3d.ingest.verify import verify

_LAYOUTS = ("folder pairs", "Decathlon", "nnU-Net v1", "nnU-Net v2", "case folders")
_MM = {"mm": 1.0, "micron": 1000.0, "meter": 0.001, "unknown": 1.0}
"""Units in a millimetre."""


class Drawn(NamedTuple):
    """A pair of files to be written. affine: In millimetres, for (x, y, z)."""

    layout: str
    shape: tuple[int, int, int]
    affine: np.ndarray
    unit: str
    dtype: str
    slope: float
    intercept: float
    form: str
    labels: list[int]
    seed: int


@st.composite
def pairs(draw) -> Drawn:
    axes, signs = draw(st.permutations(range(3))), draw(st.tuples(*[st.sampled_from([-1, 1])] * 3))
    directions = np.eye(3)[:, list(axes)] * signs
    for first, second in ((0, 1), (0, 2), (1, 2)):
        angle = np.deg2rad(draw(st.sampled_from([0.0, 0.5, 12.0, 40.0])))
        turn = np.eye(3)
        turn[[first, second], [first, second]] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        directions = turn @ directions
    affine = np.eye(4)
    affine[:3, :3] = directions * draw(st.tuples(*[st.floats(0.2, 8)] * 3))
    affine[:3, 3] = draw(st.tuples(*[st.floats(-300, 300)] * 3))
    return Drawn(
        layout=draw(st.sampled_from(_LAYOUTS)),
        shape=draw(st.tuples(*[st.integers(4, 7)] * 3)),
        affine=affine,
        unit=draw(st.sampled_from(sorted(_MM))),
        dtype=draw(st.sampled_from(["uint8", "int16", "uint16", "int32", "float32", "float64"])),
        slope=draw(st.sampled_from([1.0, 0.5, 2.0, 0.1])),
        intercept=draw(st.sampled_from([0.0, -1024.0, 3.25])),
        form=draw(st.sampled_from(["sform", "qform", "both"])),
        labels=sorted(draw(st.sets(st.integers(1, 2000), min_size=1, max_size=4))),
        seed=draw(st.integers(0, 2**16)),
    )


def files_of(drawn: Drawn, root: Path) -> tuple[Path, Path]:
    image, label, description = {
        "folder pairs": ("images/c.nii.gz", "labels/c.nii.gz", None),
        "Decathlon": ("imagesTr/c.nii.gz", "labelsTr/c.nii.gz", {"training": True}),
        "nnU-Net v1": ("imagesTr/c_0000.nii.gz", "labelsTr/c.nii.gz", {"training": True}),
        "nnU-Net v2": ("imagesTr/c_0000.nii.gz", "labelsTr/c.nii.gz", {"channel_names": {"0": "x"}}),
        "case folders": ("c/image.nii.gz", "c/mask.nii.gz", None),
    }[drawn.layout]
    named = {0: "background"} | {label_id: f"organ {label_id}" for label_id in drawn.labels}
    if description and "training" in description:
        description |= {"labels": named, "training": [{"image": "imagesTr/c.nii.gz", "label": "labelsTr/c.nii.gz"}]}
    elif description:
        description |= {"labels": {name: label_id for label_id, name in named.items()}, "file_ending": ".nii.gz"}
    if description:
        (root / "dataset.json").write_text(json.dumps(description))
    return root / image, root / label


def save(path: Path, voxels: np.ndarray, drawn: Drawn, slope: float = 1.0, intercept: float = 0.0) -> None:
    affine = np.diag([_MM[drawn.unit]] * 3 + [1.0]) @ drawn.affine
    header = nib.Nifti1Header()
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.shape)
    header.set_xyzt_units(drawn.unit)
    header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
    if drawn.form != "sform":
        header.set_qform(affine, 1)
    if drawn.form != "qform":
        header.set_sform(affine, 1)
    header["magic"], header["vox_offset"], header["scl_slope"], header["scl_inter"] = b"n+1", 352, slope, intercept
    path.parent.mkdir(exist_ok=True)
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header.binaryblock + bytes(4) + voxels.tobytes(order="F"))


def by_simpleitk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Affine to RAS millimetres, and voxels (x, y, z)."""
    image = SimpleITK.ReadImage(path)
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1.0, -1, 1, 1]) @ affine, SimpleITK.GetArrayFromImage(image).T


def by_nibabel(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = nib.load(path)
    return image.affine, np.asanyarray(image.dataobj)


def is_same(source: Path, written: Path, tolerance: float) -> None:
    """Each voxel of the source lies in the written file where it lay, within 0.05 voxels, and has its value."""
    affine, values = by_simpleitk(source)
    places = affine @ np.vstack([np.indices(values.shape).reshape(3, -1), np.ones(values.size)])
    for read in (by_nibabel, by_simpleitk):
        written_affine, found = read(written)
        indices = (np.linalg.inv(written_affine) @ places)[:3]
        nearest = np.rint(indices).astype(int)
        assert np.abs(indices - nearest).max() < 0.05
        assert nearest.min() == 0
        assert found.shape == tuple(nearest.max(axis=1) + 1)
        assert np.abs(found[tuple(nearest)].astype(float) - values.ravel()).max() <= tolerance


@given(drawn=pairs())
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_pair_comes_back_at_its_place_with_its_values(modality, drawn):
    rng = np.random.default_rng(drawn.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        image_path, mask_path = files_of(drawn, root)
        stored = rng.integers(0, 200, drawn.shape).astype(drawn.dtype)
        mask = rng.choice([0, *drawn.labels], drawn.shape).astype(np.uint16)
        mask.ravel()[: len(drawn.labels)] = drawn.labels
        save(image_path, stored, drawn, drawn.slope, drawn.intercept)
        save(mask_path, mask, drawn)

        expected = stored * drawn.slope + drawn.intercept
        out, info = passed_through(root, modality, (expected.min() - 1, expected.max() + 1))
        quantum = 1.0 if info.image_dtype != "float32" else np.ptp(expected) * 2**-9  # prepared sets hold float16
        is_same(image_path, out / "images" / "c.nii.gz", quantum / 2 + 1e-6)
        is_same(mask_path, out / "labels" / "c.nii.gz", 0)


def passed_through(root: Path, modality: str, hu_window: tuple[float, float]) -> tuple[Path, SyntheticSetInfo]:
    """Ingest the one case of a source and write it as a pipeline would that changes nothing."""
    config = IngestConfig(modality=modality, percentiles=(0, 100), split_shares=(1, 0, 0), hu_window=hu_window)
    source = read_source(root)
    given = {"name": "set", "seed": 0, "labels_file": None, "patient_regex": None, "patients_csv": None}
    request = make_request(source, config, **given)
    plan = make_ingest_plan(request, [verify(pair, root, request.rules) for pair in source.pairs], skip_bad=False)
    write_prepared_case(root / "prepared", 0, prepare(plan.cases[0], plan.info))
    write_info(root / "prepared", plan.info)
    prepared = PreparedSet(root / "prepared")
    case = prepared.read("c")
    common = BundleDataset.of(prepared).model_dump(
        include={"modality", "phantom", "labels", "spacing_mm", "axis_codes", "image_dtype"}
    )
    info = SyntheticSetInfo(
        dataset_name="set",
        dataset_digest=prepared.digest,
        pipeline_name="set",
        pipeline_version=1,
        seed=1,
        config_hash="c" * 64,
        weights_sha256={"refiner": "f" * 64},
        batch=1,
        threads=1,
        device="cpu",
        **common,
    )
    out = root / "out"
    open_for_writing(out, info)
    inside = (slice(None), case.box.rows, case.box.columns)
    image = Volume(voxels=case.intensity.from_unit(case.image[inside]), affine=case.affine)
    mask = Volume(voxels=info.label_table.to_original(case.mask[inside]), affine=case.affine)
    write_case(out, info, case_id="c", number=0, image=image, mask=mask)
    return out, info
