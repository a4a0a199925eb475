import io
import json

import numpy as np
import pytest
from PIL import Image

from medgen3d.artifacts import nifti
from medgen3d.artifacts.manifest import ManifestRow, SyntheticSetInfo
from medgen3d.artifacts.prepared_set import (
    CaseEntry,
    DatasetInfo,
    Intensity,
    PreparedCase,
    write_info,
    write_part,
)
from medgen3d.artifacts.report import read_report
from medgen3d.artifacts.synthetic_set import merge_parts, open_for_writing, write_case
from medgen3d.artifacts.synthetic_set import write_part as write_manifest_part
from medgen3d.core.errors import ArtifactError, DataError
from medgen3d.core.volume import Box, Volume, affine_from_spacing
from medgen3d.evaluation.comparison import compare

SPACING_MM = (2.0, 1.0, 0.5)  # a voxel is one microlitre
LABELS = {0: "background", 5: "liver", 9: "spleen"}


def scene(side, seed, liver=5, spleen=9):
    """A liver of 2 x side x side voxels, two spleens of 8 voxels each, and noise."""
    mask = np.zeros((6, 16, 16), dtype=np.uint16)
    mask[0:2, :side, :side] = liver
    mask[4:6, 0:2, 0:2] = mask[4:6, 8:10, 8:10] = spleen
    image = np.random.default_rng(seed).normal(size=mask.shape) + mask
    return image.astype(np.float32), mask


def make_synthetic(root, num_cases=3, side=5, phantom=False, labels=LABELS):
    info = SyntheticSetInfo(
        dataset_name="abdomen",
        dataset_digest="d" * 64,
        modality="CT",
        phantom=phantom,
        labels=labels,
        spacing_mm=SPACING_MM,
        axis_codes="LPS",
        image_dtype="float32",
        pipeline_name="abdomen.pipeline",
        pipeline_version=4,
        seed=77,
        config_hash="c" * 64,
        weights_sha256={"refiner": "f" * 64},
        batch=8,
        threads=1,
        device="cpu",
    )
    open_for_writing(root, info)
    rows = [ManifestRow(case_id="syn_00099", number=99, shape=(1, 1, 1), status="failed", message="no luck")]
    for number in range(num_cases):
        image, mask = (Volume(voxels=voxels, affine=affine_from_spacing(SPACING_MM)) for voxels in scene(side, number))
        rows.append(write_case(root, info, case_id=f"syn_{number:05d}", number=number, image=image, mask=mask))
    write_manifest_part(root, info, 0, rows)
    merge_parts(root)
    return root


def make_prepared(root, num_cases=4, side=4, spacing_mm=SPACING_MM):
    """Cases of 6 x 16 x 16 voxels in a plane of 24 x 24; the padding must not count."""
    box, cases = Box.centred(16, 16, 24, 24), []
    for number in range(num_cases):
        image, mask = scene(side, 100 + number, liver=1, spleen=2)
        cases.append(
            PreparedCase(
                case_id=f"real_{number}",
                split="train",
                image=np.pad(image / 10, ((0, 0), (4, 4), (4, 4)), constant_values=1.0),
                mask=np.pad(mask, ((0, 0), (4, 4), (4, 4))),
                box=box,
                affine=affine_from_spacing(spacing_mm),
                intensity=Intensity(low=-10, high=10),
            )
        )
    write_part(root, 0, cases)
    write_info(
        root,
        DatasetInfo(
            name="abdomen",
            modality="CT",
            labels=LABELS,
            spacing_mm=spacing_mm,
            plane=(24, 24),
            intensity={},
            inverse=Intensity(low=-10, high=10),
            seed=0,
            patients_known=False,
            cases=[
                CaseEntry(
                    case_id=case.case_id, patient=case.case_id, split="train", shape=(6, 16, 16), sources_sha256={}
                )
                for case in cases
            ],
        ),
    )
    return root


def make_decathlon(root, num_cases=4, spacing_mm=SPACING_MM):
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    names = [f"case_{number}.nii.gz" for number in range(num_cases)]
    for number, name in enumerate(names):
        image, mask = (Volume(voxels=voxels, affine=affine_from_spacing(spacing_mm)) for voxels in scene(4, number))
        nifti.write(root / "imagesTr" / name, image, "LAS")
        nifti.write(root / "labelsTr" / name, mask, "LAS")
    pairs = [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names]
    content = {"name": "abdomen", "labels": {str(label): name for label, name in LABELS.items()}, "training": pairs}
    (root / "dataset.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("make_real", [make_prepared, make_decathlon])
def test_volumes_and_components_are_those_of_the_cases(tmp_path, make_real):
    compare(make_real(tmp_path / "real"), make_synthetic(tmp_path / "synthetic"), tmp_path / "out")
    report = read_report(tmp_path / "out")
    liver, spleen = report.labels

    assert (liver.label_id, liver.name) == (5, "liver")
    assert liver.real.voxels.mean == 32  # 2 x 4 x 4
    assert liver.real.volume_ml.mean == pytest.approx(0.032)
    assert liver.synthetic.voxels.mean == 50  # 2 x 5 x 5
    assert liver.volume_difference == pytest.approx(50 / 32 - 1)
    assert liver.real.components.mean == 1
    assert (spleen.real.components.mean, spleen.synthetic.components.mean) == (2, 2)
    assert spleen.volume_difference == 0
    assert (report.real.num_cases, report.synthetic.num_cases) == (4, 3)
    assert report.intensity.num_per_side == 2


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A report's folder, the report, and the progress that was told."""
    root, seen = tmp_path_factory.mktemp("compared"), []
    real, synthetic = make_prepared(root / "real"), make_synthetic(root / "synthetic")
    report = compare(real, synthetic, root / "out", lambda done, total: seen.append((done, total)))
    return root, report, seen


def test_the_report_says_where_the_synthetic_cases_come_from_and_how_many_failed(compared):
    _, report, _ = compared
    assert report.synthetic.facts["Pipeline"] == "abdomen.pipeline, version 4"
    assert report.synthetic.facts["Seed"] == "77"
    assert report.synthetic.facts["Failed cases"] == "1"
    assert not report.phantom


def test_the_page_and_its_pictures_are_there(compared):
    out = compared[0] / "out"
    assert "liver" in (out / "report.html").read_text()
    for name in ("montage.png", "synthetic.png", "volumes.png", "intensities.png"):
        Image.open(io.BytesIO((out / name).read_bytes())).verify()


def test_the_same_sets_give_the_same_figures(compared, tmp_path):
    root, report, _ = compared
    again = compare(root / "real", root / "synthetic", tmp_path)
    assert again.model_copy(update={"created": report.created}) == report


def test_progress_reaches_the_number_of_cases(compared):
    assert compared[2] == [(done, 7) for done in range(1, 8)]


def test_a_report_on_phantom_data_says_so(tmp_path):
    synthetic = make_synthetic(tmp_path / "synthetic", phantom=True)
    assert compare(make_prepared(tmp_path / "real"), synthetic, tmp_path / "out").phantom
    assert "PHANTOM DATA" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize("make_real", [make_prepared, make_decathlon])
def test_another_spacing_is_refused_with_both_named(tmp_path, make_real):
    real = make_real(tmp_path / "real", spacing_mm=(3.0, 1.0, 1.0))
    with pytest.raises(DataError, match=r"voxels of 3 x 1 x 1 mm, but the synthetic set has 2 x 1 x 0\.5 mm"):
        compare(real, make_synthetic(tmp_path / "synthetic"), tmp_path / "out")


def test_other_labels_are_refused(tmp_path):
    synthetic = make_synthetic(tmp_path / "synthetic", labels=LABELS | {11: "aorta"})
    with pytest.raises(DataError, match=r"\(0, 5, 9, 11\).*\(0, 5, 9\)"):
        compare(make_prepared(tmp_path / "real"), synthetic, tmp_path / "out")


def test_a_set_without_cases_is_refused(tmp_path):
    synthetic = make_synthetic(tmp_path / "synthetic", num_cases=0)
    with pytest.raises(DataError, match="holds no cases"):
        compare(make_prepared(tmp_path / "real"), synthetic, tmp_path / "out")


def test_a_folder_that_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"neither dataset\.yaml"):
        compare(tmp_path, make_synthetic(tmp_path / "synthetic"), tmp_path / "out")


def test_a_damaged_synthetic_file_is_found(tmp_path):
    synthetic = make_synthetic(tmp_path / "synthetic")
    (synthetic / "images" / "syn_00001.nii.gz").write_bytes(b"")
    with pytest.raises(ArtifactError, match="syn_00001"):
        compare(make_prepared(tmp_path / "real"), synthetic, tmp_path / "out")
