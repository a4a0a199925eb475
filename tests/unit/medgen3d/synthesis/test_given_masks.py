import json
import pickle

import numpy as np
import pytest

from medgen3d.artifacts import nifti
from medgen3d.artifacts.bundle import BundleDataset, read_bundle
from medgen3d.artifacts.intensity import Intensity
from medgen3d.artifacts.prepared_set import CaseEntry, DatasetInfo, PreparedCase, write_info, write_prepared_case
from medgen3d.core.errors import DataError
from medgen3d.core.volume import Box, Volume, affine_from_spacing
from medgen3d.synthesis.given_masks import open_masks

SPACING_MM = (3.0, 0.5, 0.75)
LABELS = {0: "background", 7: "bone", 300: "cartilage"}
SPLITS = {"knee-0": "train", "knee-1": "test", "knee-2": "test"}


@pytest.fixture
def dataset(tiny_pipeline) -> BundleDataset:
    return read_bundle(tiny_pipeline["mask_generator"]).info.dataset


def mask_of(number: int) -> np.ndarray:
    """[4 + number, 10, 20], contiguous ids; case n shows label 1 in its slice n."""
    mask = np.zeros((4 + number, 10, 20), np.uint8)
    mask[number] = 1
    mask[-1, 3] = 2
    return mask


def write_prepared(root, **changes) -> None:
    box = Box(top=2, bottom=12, left=1, right=21)
    cases, entries = [], []
    for number, (case_id, split) in enumerate(SPLITS.items()):
        padded = np.pad(mask_of(number), ((0, 0), (2, 4), (1, 3)))  # 10 x 20 in a plane of 16 x 24
        cases.append(
            PreparedCase(
                case_id=case_id,
                split=split,
                image=np.zeros(padded.shape, np.float32),
                mask=padded,
                box=box,
                affine=affine_from_spacing(SPACING_MM),
                intensity=Intensity(low=0, high=1),
            )
        )
        entries.append(
            CaseEntry(
                case_id=case_id, patient=case_id, split=split, shape=(4 + number, 10, 20), sources_sha256={"mask": "0"}
            )
        )
    for number, case in enumerate(cases):
        write_prepared_case(root, number, case)
    facts = {"name": "knee", "modality": "MR", "labels": LABELS, "spacing_mm": SPACING_MM, "plane": (16, 24)}
    scale = Intensity(low=0, high=1)
    info = DatasetInfo(
        **(facts | changes),
        intensity={"kind": "hu_window", "low": 0, "high": 1},
        inverse=scale,
        seed=0,
        patients_known=False,
        cases=entries,
    )
    write_info(root, info)


def write_folder(root, labels, spacing_mm=SPACING_MM) -> None:
    """Two masks in the layout of a Decathlon folder, with the user's own ids."""
    (root / "labels").mkdir(parents=True)
    for number in range(2):
        voxels = np.array([0, 7, 300], np.uint16)[mask_of(number)]
        volume = Volume(voxels=voxels, affine=affine_from_spacing(spacing_mm))
        nifti.write(root / "labels" / f"knee-{number}.nii.gz", volume, "LPS")
    entries = [{"image": "absent", "label": f"./labels/knee-{number}.nii.gz"} for number in (1, 0)]
    (root / "dataset.json").write_text(json.dumps({"labels": labels, "training": entries}))


def test_the_masks_of_a_split_come_in_stored_order_without_padding(tmp_path, dataset):
    write_prepared(tmp_path)
    given = open_masks(tmp_path, dataset)

    assert given.case_ids == ("knee-1", "knee-2")
    assert given.shapes == ((5, 10, 20), (6, 10, 20))
    for case_id, number in (("knee-1", 1), ("knee-2", 2)):
        np.testing.assert_array_equal(given.read(case_id), mask_of(number))
    assert open_masks(tmp_path, dataset, "train").case_ids == ("knee-0",)


def test_masks_can_be_sent_to_another_process(tmp_path, dataset):
    write_prepared(tmp_path / "prepared")
    write_folder(tmp_path / "folder", {"0": "background", "7": "bone", "300": "cartilage"})
    for root in ("prepared", "folder"):
        given = pickle.loads(pickle.dumps(open_masks(tmp_path / root, dataset)))
        np.testing.assert_array_equal(given.read("knee-1"), mask_of(1))


@pytest.mark.parametrize(
    "labels",
    [
        {"0": "background", "7": "bone", "300": "cartilage"},
        {"7": "bone", "300": "cartilage"},
        {"background": 0, "bone": 7, "cartilage": 300},
    ],
    ids=["Decathlon", "without background", "as synthetic sets have it"],
)
def test_a_folders_masks_come_as_contiguous_ids_in_the_order_of_its_dataset_json(labels, tmp_path, dataset):
    write_folder(tmp_path, labels)
    given = open_masks(tmp_path, dataset)

    assert given.case_ids == ("knee-1", "knee-0")
    assert given.shapes == ((5, 10, 20), (4, 10, 20))
    np.testing.assert_array_equal(given.read("knee-0"), mask_of(0))


def test_the_digest_tells_splits_and_changed_files_apart(tmp_path, dataset):
    write_prepared(tmp_path / "prepared")
    write_folder(tmp_path / "folder", {"7": "bone", "300": "cartilage"})
    first = open_masks(tmp_path / "folder", dataset).digest
    digests = {open_masks(tmp_path / "prepared", dataset, split).digest for split in ("train", "test")} | {first}
    assert len(digests) == 3
    assert open_masks(tmp_path / "folder", dataset).digest == first
    (tmp_path / "folder/labels/knee-1.nii.gz").write_bytes((tmp_path / "folder/labels/knee-0.nii.gz").read_bytes())
    assert open_masks(tmp_path / "folder", dataset).digest != first


def test_masks_of_other_labels_or_another_spacing_are_refused(tmp_path, dataset):
    write_folder(tmp_path / "swapped", {"7": "cartilage", "300": "bone"})
    write_folder(tmp_path / "coarse", {"7": "bone", "300": "cartilage"}, (3.0, 0.5, 1.0))
    write_prepared(tmp_path / "other", labels={0: "background", 7: "bone", 9: "cartilage"})
    write_prepared(tmp_path / "thick", spacing_mm=(4.0, 0.5, 0.75))
    for root, words in {"swapped": "labels", "coarse": "spacing", "other": "labels", "thick": "spacing"}.items():
        with pytest.raises(DataError, match=rf"{root}.*{words}"):
            open_masks(tmp_path / root, dataset)


def test_a_split_without_cases_and_a_folder_without_masks_are_refused(tmp_path, dataset):
    write_prepared(tmp_path / "prepared")
    with pytest.raises(DataError, match="no case of the split 'validation'"):
        open_masks(tmp_path / "prepared", dataset, "validation")
    with pytest.raises(DataError, match=r"neither dataset\.yaml"):
        open_masks(tmp_path, dataset)
    (tmp_path / "dataset.json").write_text('{"labels": {}}')
    with pytest.raises(DataError, match=r"dataset\.json is not valid \(KeyError\('training'\)\)"):
        open_masks(tmp_path, dataset)
