"""Verify: one test per row of the table of problems; each puts one flaw into a sound pair of real files."""

import gzip
import hashlib

import nibabel as nib
import numpy as np
import pytest

from medgen3d.artifacts.intensity import IntensityRule
from medgen3d.ingest.problems import CaseProblem
from medgen3d.ingest.sources import Pair
from medgen3d.ingest.verify import Rules, Verification, verify

RULES = Rules(labels=(0, 1, 2), intensity=IntensityRule(kind="percentiles", low=0, high=100))
CT_RULES = RULES.model_copy(update={"intensity": IntensityRule(kind="hu_window", low=-1000, high=1000)})
OPEN_RULES = RULES.model_copy(update={"labels": None})


@pytest.fixture
def judge(tmp_path):
    """Verify the pair called "liver_7" below tmp_path."""

    def judged(rules: Rules = RULES) -> Verification:
        image, mask = (tmp_path / folder / "liver_7.nii.gz" for folder in ("images", "labels"))
        return verify(Pair(case="liver_7", image=image, mask=mask), tmp_path, rules)

    return judged


def only_problem(verification: Verification) -> CaseProblem:
    """The one problem; its sentence names the case and ends with what to do."""
    (problem,) = verification.problems
    assert verification.facts is None
    assert str(problem).startswith(f"case liver_7: {problem.kind}: found ")
    assert str(problem).endswith(problem.remedy)
    return problem


def test_a_sound_pair_has_no_problem_and_gives_its_facts(write_pair, judge, image):
    paths = write_pair("liver_7")
    verification = judge()
    assert verification.problems == ()
    assert verification.facts.shape == (8, 7, 6)
    assert verification.facts.spacing_mm == (2, 1, 1)
    assert (verification.facts.axis_codes, verification.facts.is_oriented) == ("RAS", True)
    assert (verification.facts.is_whole, verification.facts.notes) == (False, ())
    assert verification.facts.labels_found == (0, 1, 2)
    assert (verification.facts.intensity.low, verification.facts.intensity.high) == (image.min(), image.max())
    assert verification.facts.sha256 == {
        f"{path.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in paths
    }


def test_the_intensities_of_a_ct_are_the_window(write_pair, judge):
    write_pair("liver_7")
    intensity = judge(CT_RULES).facts.intensity
    assert (intensity.low, intensity.high) == (-1000, 1000)


@pytest.mark.parametrize(("lost", "role"), [(0, "image"), (1, "mask")])
def test_missing_partner(write_pair, judge, lost, role):
    path = write_pair("liver_7")[lost]
    path.unlink()
    problem = only_problem(judge())
    assert (problem.kind, problem.found) == ("missing partner", f"no {role} liver_7.nii.gz")
    assert problem.remedy == f"Add {path}."


@pytest.mark.parametrize(("damaged", "role"), [(0, "image"), (1, "mask")])
def test_truncated_file(write_pair, judge, damaged, role):
    path = write_pair("liver_7")[damaged]
    path.write_bytes(path.read_bytes()[:-20])
    problem = only_problem(judge())
    assert (problem.kind, problem.remedy) == ("unreadable file", "Restore or export the file again.")
    assert problem.found == f"{role} {path}: a truncated gzip file"


def test_unreadable_file(write_pair, judge):
    write_pair("liver_7")[0].write_bytes(b"\x1f\x8bnonsense")
    assert only_problem(judge()).kind == "unreadable file"


def test_a_time_series_is_no_volume(write_pair, judge, image):
    write_pair("liver_7", image=np.stack([image, image], axis=-1))
    problem = only_problem(judge())
    assert (problem.kind, problem.remedy) == ("unreadable file", "Extract a single volume or channel.")


def test_shape_mismatch(write_pair, judge, mask):
    write_pair("liver_7", mask=mask[:, :, :-1])
    problem = only_problem(judge())
    assert problem.kind == "shape mismatch"
    assert (problem.found, problem.expected) == ("mask of 7 x 7 x 6 voxels", "8 x 7 x 6 as the image")
    assert "Resample the mask onto the image grid" in problem.remedy


def test_spacing_mismatch(write_pair, judge):
    write_pair("liver_7", mask_affine=np.diag([1.0, 1.0, 2.5, 1.0]))
    problem = only_problem(judge())
    assert problem.kind == "spacing mismatch"
    assert (problem.found, problem.expected) == ("mask of 2.5 x 1 x 1 mm", "2 x 1 x 1 mm as the image")
    assert "Resample the mask onto the image grid" in problem.remedy


def test_affine_mismatch_by_a_shift(write_pair, judge, affine):
    shifted = affine.copy()
    shifted[0, 3] = 3
    write_pair("liver_7", mask_affine=shifted)
    problem = only_problem(judge())
    assert (problem.kind, problem.found) == (
        "affine mismatch",
        "a mask that lies up to 3.00 voxels off the image",
    )
    assert "copy the image's" in problem.remedy


def test_affine_mismatch_by_a_turn(write_pair, judge):
    angle = np.deg2rad(5)
    turned = np.array(
        [[np.cos(angle), -np.sin(angle), 0, 0], [np.sin(angle), np.cos(angle), 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]
    )
    write_pair("liver_7", mask_affine=turned)
    assert only_problem(judge()).kind == "affine mismatch"


def test_rounding_in_a_header_is_no_mismatch(write_pair, judge, affine):
    write_pair("liver_7", mask_affine=affine + 1e-4)
    assert judge().problems == ()


def test_a_mask_stored_in_another_orientation_is_no_mismatch(write_pair, judge, mask):
    flipped = np.diag([-1.0, 1.0, 2.0, 1.0])
    flipped[0, 3] = 5  # six voxels: the first of the file is the last of the image
    write_pair("liver_7", mask=mask[::-1], mask_affine=flipped)
    assert judge().problems == ()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_or_infinity_in_the_image(write_pair, judge, image, bad):
    image[0, 0, :3] = bad
    write_pair("liver_7", image=image)
    problem = only_problem(judge())
    assert (problem.kind, problem.found) == ("NaN or infinity", "3 voxels of the image")
    assert "Replace these values" in problem.remedy


def test_nan_in_the_mask(write_pair, judge, mask):
    mask = mask.astype(np.float32)
    mask[0, 0, 0] = np.nan
    write_pair("liver_7", mask=mask)
    assert only_problem(judge()).found == "1 voxels of the mask"


def test_constant_intensity(write_pair, judge, image):
    write_pair("liver_7", image=np.full_like(image, 7))
    problem = only_problem(judge())
    assert problem.kind == "constant intensity"
    assert "Check the export of the image" in problem.remedy


def test_a_ct_wholly_outside_its_window_is_constant(write_pair, judge, image):
    write_pair("liver_7", image=image + 5000)
    assert only_problem(judge(CT_RULES)).found == "one value, 1000, between -1000 and 1000"


def test_non_integer_labels(write_pair, judge, mask):
    mask = mask.astype(np.float32)
    mask[0, 0, :2] = 0.25, 1.5
    write_pair("liver_7", mask=mask)
    problem = only_problem(judge())
    assert (problem.kind, problem.found) == ("non-integer labels", "0.25, 1.5")
    assert "nearest-neighbour" in problem.remedy


def test_whole_labels_stored_as_floats_are_fine(write_pair, judge, mask):
    write_pair("liver_7", mask=mask.astype(np.float64))
    assert judge().facts.labels_found == (0, 1, 2)


def test_undeclared_labels(write_pair, judge, mask):
    mask[0, 0, :6] = range(3, 9)
    write_pair("liver_7", mask=mask)
    problem = only_problem(judge())
    assert problem.kind == "undeclared labels"
    assert (problem.found, problem.expected) == ("3, 4, 5, 6, 7 and 1 more", "0, 1, 2")
    assert "--labels" in problem.remedy


def test_without_declared_labels_any_id_is_found(write_pair, judge, mask):
    mask[0, 0, 0] = 200
    write_pair("liver_7", mask=mask)
    assert judge(OPEN_RULES).facts.labels_found == (0, 1, 2, 200)


@pytest.mark.parametrize("label", [-1, 65536])
def test_an_id_that_no_mask_can_hold_is_undeclared_in_any_case(write_pair, judge, mask, label):
    mask = mask.astype(np.int32)
    mask[0, 0, 0] = label
    write_pair("liver_7", mask=mask)
    problem = only_problem(judge(OPEN_RULES))
    assert (problem.kind, problem.found) == ("undeclared labels", str(label))


def test_empty_mask(write_pair, judge, mask):
    write_pair("liver_7", mask=np.zeros_like(mask))
    problem = only_problem(judge())
    assert (problem.kind, problem.remedy) == ("empty mask", "Label the case, or remove it.")


def test_all_problems_of_a_case_are_found_in_one_pass(write_pair, judge, image, mask):
    image[0, 0, 0] = np.nan
    mask = mask.astype(np.float32)
    mask[0, 0, :2] = 0.5, 9
    write_pair("liver_7", image=image, mask=mask[:, :-1], mask_affine=np.diag([1.0, 3.0, 2.0, 1.0]))
    assert {problem.kind for problem in judge().problems} == {
        "NaN or infinity",
        "non-integer labels",
        "undeclared labels",
        "shape mismatch",
        "spacing mismatch",
    }


def test_a_missing_image_does_not_hide_what_is_wrong_with_the_mask(write_pair, judge, mask):
    image_path, _ = write_pair("liver_7", mask=np.zeros_like(mask))
    image_path.unlink()
    assert [problem.kind for problem in judge().problems] == ["missing partner", "empty mask"]


def save_scaled(path, voxels):
    """nibabel chooses a slope with which floats fill int16: 2 / 65535 for 0, 1 and 2, which come back as 1.00002."""
    image = nib.Nifti1Image(np.asarray(voxels, dtype=np.float64), np.diag([1.0, 1.0, 2.0, 1.0]))
    image.header.set_data_dtype(np.int16)
    nib.save(image, path)


def test_rounding_errors_of_a_scaled_mask_are_no_labels(write_pair, judge, mask):
    _, path = write_pair("liver_7")
    save_scaled(path, mask)
    assert judge().facts.labels_found == (0, 1, 2)


def test_a_scaled_mask_may_still_hold_what_is_no_label(write_pair, judge, mask):
    _, path = write_pair("liver_7")
    save_scaled(path, mask * 0.75)
    assert only_problem(judge()).kind == "non-integer labels"


def test_voxels_that_nobody_labelled(write_pair, judge):
    write_pair("liver_7")
    problem = only_problem(judge(RULES.model_copy(update={"labels": (0, 1), "ignored": 2})))
    assert (problem.kind, "the id 2" in problem.found) == ("unlabelled voxels", True)


def test_a_ct_that_is_in_no_hounsfield_units(write_pair, judge, image):
    write_pair("liver_7", image=image / 200)
    assert only_problem(judge(CT_RULES)).kind == "not in Hounsfield units"


def test_whole_numbers_are_whole_in_whichever_type(write_pair, judge, image):
    write_pair("liver_7", image=np.rint(image))
    assert judge().facts.is_whole


def test_an_image_that_does_not_say_how_it_lies(write_pair, judge):
    for path in write_pair("liver_7"):
        plain = bytearray(gzip.decompress(path.read_bytes()))
        plain[252:256] = bytes(4)  # qform_code and sform_code
        path.write_bytes(gzip.compress(bytes(plain)))
    facts = judge().facts
    assert not facts.is_oriented
    assert any("orientation is unknown" in note for note in facts.notes)


def test_a_case_that_says_that_it_is_synthetic_is_noted(tmp_path, make_synthetic):
    root = make_synthetic(tmp_path / "pairs")
    pair = Pair(case="a", image=root / "images/syn_00000.nii.gz", mask=root / "labels/syn_00000.nii.gz")
    (note, of_mask) = verify(pair, root, RULES.model_copy(update={"labels": None})).facts.notes
    assert note.startswith("marked as synthetic: made by medgen3d")
    assert of_mask == f"mask: {note}"
