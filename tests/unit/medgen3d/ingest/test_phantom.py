import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import label

from medgen3d.artifacts import nifti
from medgen3d.core.errors import ConfigError, DataError
from medgen3d.core.volume import Volume
from medgen3d.ingest.phantom import KINDS, LABELS, make_phantom, write_phantoms

NUM_CASES = 6


def cases(kind: str) -> list[tuple[Volume, Volume]]:
    return [make_phantom(kind, np.random.default_rng(number)) for number in range(NUM_CASES)]


def levels(mask: NDArray[np.generic], label_id: int) -> NDArray[np.intp]:
    """The slices that show a label."""
    return np.flatnonzero((mask == label_id).any(axis=(1, 2)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_case_shows_every_label_and_nothing_undeclared(kind: str):
    for image, mask in cases(kind):
        assert set(np.unique(mask.voxels)) == {0, *LABELS[kind]}
        assert image.voxels.shape == mask.voxels.shape
        assert image.voxels.dtype == np.int16
        np.testing.assert_array_equal(image.affine, mask.affine)


@pytest.mark.parametrize("kind", KINDS)
def test_label_ids_have_gaps_so_that_they_must_be_mapped(kind: str):
    assert sorted(LABELS[kind]) != list(range(1, len(LABELS[kind]) + 1))


@pytest.mark.parametrize("kind", KINDS)
def test_structures_hang_together(kind: str):
    for _, mask in cases(kind):
        for label_id in LABELS[kind]:
            pieces, _ = label(mask.voxels == label_id)
            sizes = np.sort(np.bincount(pieces.ravel())[1:])[::-1]
            largest = sizes[:2] if LABELS[kind][label_id] == "ventricles" else sizes[:1]  # ventricles are a pair
            assert largest.sum() > 0.9 * sizes.sum(), LABELS[kind][label_id]


@pytest.mark.parametrize("kind", KINDS)
def test_cases_differ_in_size_position_and_number_of_slices(kind: str):
    masks = [mask.voxels for _, mask in cases(kind)]
    largest = 1 if kind == "thorax_ct" else 2
    volumes = np.array([(mask == largest).sum() for mask in masks])
    centres = np.array([np.argwhere(mask > 0).mean(axis=0) for mask in masks])
    assert len({mask.shape[0] for mask in masks}) > 2
    assert {mask.shape[1:] for mask in masks} == {(48, 48)}
    assert volumes.std() / volumes.mean() > 0.05
    assert (centres.std(axis=0) > 0.2).all()


def test_the_anatomy_of_the_chest_changes_with_the_level_as_in_a_body():
    for _, volume in cases("thorax_ct"):
        mask = volume.voxels
        depth = mask.shape[0]
        left, right, heart, aorta, spine = (levels(mask, label_id) for label_id in (2, 3, 5, 6, 9))
        for lung in (left, right):
            assert lung.min() > 0  # the diaphragm is below
            assert lung.max() < depth - 1  # the neck is above
        assert heart.max() < max(left.max(), right.max())
        assert aorta.min() == 0
        assert aorta.max() < depth - 1  # it turns back at the arch
        assert len(spine) == depth


def test_left_is_left_and_front_is_front_in_the_chest():
    for _, volume in cases("thorax_ct"):
        centre = {label_id: np.argwhere(volume.voxels == label_id).mean(axis=0) for label_id in LABELS["thorax_ct"]}
        assert centre[2][2] < centre[5][2] < centre[3][2]  # x grows to the right; the heart lies left of the middle
        assert centre[5][2] < centre[1][2]
        assert centre[9][1] < centre[1][1] < centre[5][1]  # y grows to the front: spine, body, heart


def test_tissues_have_their_hounsfield_units():
    for image, mask in cases("thorax_ct"):
        median = {label_id: np.median(image.voxels[mask.voxels == label_id]) for label_id in (0, 1, 2, 3, 5, 6, 9)}
        assert median[0] < -950
        assert -60 < median[1] < 100
        assert -900 < median[2] < -600
        assert -900 < median[3] < -600
        assert 20 < median[5] < 250
        assert 20 < median[6] < 320
        assert median[9] > 100


def test_tissues_of_the_head_have_the_order_of_a_t1_image_in_units_that_differ_from_case_to_case():
    scales = []
    for image, mask in cases("brain_mr"):
        median = {label_id: np.median(image.voxels[mask.voxels == label_id]) for label_id in LABELS["brain_mr"]}
        assert median[4] < median[1] < median[17] < median[2]  # fluid, grey, hippocampus, white
        assert image.voxels.min() >= 0  # a magnitude
        scales.append(median[2])
    assert max(scales) > 1.5 * min(scales)


def test_ventricles_and_hippocampi_lie_inside_the_head_at_some_levels_only():
    for _, volume in cases("brain_mr"):
        mask = volume.voxels
        brain = levels(mask, 1)
        for label_id in (4, 17, 53):
            found = levels(mask, label_id)
            assert brain.min() < found.min() <= found.max() < brain.max()
        assert np.argwhere(mask == 17).mean(axis=0)[2] < np.argwhere(mask == 53).mean(axis=0)[2]  # left before right


def test_size_sets_the_spacing_within_a_fixed_field_of_view():
    image, _ = make_phantom("thorax_ct", np.random.default_rng(0), (64, 96, 72))
    assert image.spacing_mm == (256 / 64, 360 / 96, 360 / 72)
    assert image.voxels.shape[1:] == (96, 72)
    assert 56 <= image.voxels.shape[0] <= 72


@pytest.mark.parametrize("kind", KINDS)
def test_written_files_read_back_as_the_phantom_in_the_orientation_of_their_kind(kind: str, tmp_path: Path):
    write_phantoms(kind, 2, seed=3, out=tmp_path)
    description = json.loads((tmp_path / "dataset.json").read_text())
    assert description["phantom"] is True
    assert description["numTraining"] == len(description["training"]) == 2
    assert {int(key): name for key, name in description["labels"].items()} == {0: "background"} | LABELS[kind]
    for pair in description["training"]:
        image, mask = nifti.read(tmp_path / pair["image"]), nifti.read(tmp_path / pair["label"])
        assert image.axis_codes == mask.axis_codes == {"thorax_ct": "LPS", "brain_mr": "RAS"}[kind]
        assert (image.dtype, mask.dtype) == ("int16", "uint8")
        np.testing.assert_array_equal(image.volume.affine, mask.volume.affine)
        assert set(np.unique(mask.volume.voxels)) == {0, *LABELS[kind]}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_ones(tmp_path: Path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_phantoms("brain_mr", 2, seed, tmp_path / name)
    first, again, other = (contents(tmp_path / name) for name in "abc")
    assert first == again
    assert all(first[name] != other[name] for name in first)


def test_a_case_does_not_depend_on_how_many_are_made(tmp_path: Path):
    seen = []
    write_phantoms("thorax_ct", 1, 0, tmp_path / "one")
    write_phantoms("thorax_ct", 3, 0, tmp_path / "three", progress=lambda done, count: seen.append((done, count)))
    one, three = contents(tmp_path / "one"), contents(tmp_path / "three")
    assert one["imagesTr/thorax_ct_0000.nii.gz"] == three["imagesTr/thorax_ct_0000.nii.gz"]
    assert len({three[f"imagesTr/thorax_ct_000{number}.nii.gz"] for number in range(3)}) == 3
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="not empty"):
        write_phantoms("thorax_ct", 1, 0, tmp_path)
    assert contents(tmp_path) == {"mine.txt": b"keep"}


def test_a_path_that_is_a_file_is_refused_by_name(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=str(tmp_path / "file")):
        write_phantoms("thorax_ct", 1, 0, tmp_path / "file")


def test_unknown_kinds_and_impossible_sizes_and_counts_are_refused_before_anything_is_written(tmp_path: Path):
    with pytest.raises(ConfigError, match="'knee_mr'; there are thorax_ct, brain_mr"):
        write_phantoms("knee_mr", 1, 0, tmp_path / "out")
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        write_phantoms("thorax_ct", 0, 0, tmp_path / "out")
    with pytest.raises(ConfigError, match="at least 8 voxels"):
        write_phantoms("thorax_ct", 1, 0, tmp_path / "out", size=(4, 48, 48))
    assert not (tmp_path / "out").exists()
