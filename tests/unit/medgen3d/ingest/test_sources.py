"""Sources: four layouts become one list of pairs; names in JSON files never become paths unchecked."""

import json
from pathlib import Path

import pytest

from medgen3d.artifacts.dataset_json import dataset_json
from medgen3d.core.errors import DataError
from medgen3d.ingest.descriptions import read_labels
from medgen3d.ingest.sources import read_source

DECATHLON = {
    "name": "Liver",
    "modality": {"0": "CT"},
    "labels": {"0": "background", "1": "liver"},
    "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
}
NNUNET = {
    "channel_names": {"0": "T1"},
    "labels": {"background": 0, "brain": 3},
    "numTraining": 1,
    "file_ending": ".nii.gz",
}

ONE_CASE = {"c0": {"images": ["c0_0000.nii.gz"], "label": "c0.nii.gz"}}


def describe(root: Path, content: object) -> Path:
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_a_decathlon_data_set_is_read_from_its_description(tmp_path):
    source = read_source(describe(tmp_path, DECATHLON))
    (pair,) = source.pairs
    assert (source.name, source.modality, source.labels) == ("Liver", "CT", {0: "background", 1: "liver"})
    assert (pair.case, pair.image, pair.mask) == (
        "a",
        tmp_path / "imagesTr/a.nii.gz",
        tmp_path / "labelsTr/a.nii.gz",
    )
    assert not source.phantom


def test_a_phantom_data_set_is_known_as_such(tmp_path):
    assert read_source(describe(tmp_path, DECATHLON | {"phantom": True})).phantom


def test_an_nnunet_data_set_pairs_channel_0000_with_its_label(tmp_path):
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/b_0000.nii.gz", "labelsTr/a.nii.gz", "labelsTr/b.nii.gz")
    source = read_source(describe(tmp_path, NNUNET))
    assert [(pair.case, pair.image.name, pair.mask.name) for pair in source.pairs] == [
        ("a", "a_0000.nii.gz", "a.nii.gz"),
        ("b", "b_0000.nii.gz", "b.nii.gz"),
    ]
    assert (source.modality, source.labels) == ("MR", {0: "background", 3: "brain"})


def test_an_nnunet_data_set_may_say_itself_where_its_files_are(tmp_path):
    files = {"knee": {"images": ["scans/1.nii.gz"], "label": "drawn/1.nii.gz"}}
    source = read_source(describe(tmp_path, NNUNET | {"dataset": files}))
    (pair,) = source.pairs
    assert (pair.case, pair.image, pair.mask) == ("knee", tmp_path / "scans/1.nii.gz", tmp_path / "drawn/1.nii.gz")
    assert source.labels == {0: "background", 3: "brain"}


def test_an_nnunet_path_that_leaves_the_folder_is_a_problem(tmp_path):
    files = {"knee": {"images": ["../1.nii.gz"], "label": "1.nii.gz"}}
    source = read_source(describe(tmp_path, NNUNET | {"dataset": files}))
    assert not source.pairs
    assert [(problem.case, problem.kind) for problem in source.problems] == [("knee", "unsafe path")]


def test_a_synthetic_set_is_a_source_like_any_other(tmp_path):
    labels = {0: "background", 5: "liver", 300: "spleen"}
    content = dataset_json(name="abdomen", description="", modality="CT", labels=labels, case_ids=["syn_00000"])
    source = read_source(describe(tmp_path, content | {"phantom": True}))
    (pair,) = source.pairs
    assert (source.name, source.modality, source.labels, source.phantom) == ("abdomen", "CT", labels, True)
    assert pair.case == "syn_00000"
    assert pair.image == tmp_path / "images" / "syn_00000.nii.gz"
    assert pair.mask == tmp_path / "labels" / "syn_00000.nii.gz"


def test_folders_are_paired_by_stem(tmp_path):
    touch(tmp_path, "images/b.nii", "images/a.nii.gz", "labels/a.nii.gz", "labels/b.nii.gz", "images/.DS_Store")
    source = read_source(tmp_path)
    assert [(pair.case, pair.image.name, pair.mask.name) for pair in source.pairs] == [
        ("a", "a.nii.gz", "a.nii.gz"),
        ("b", "b.nii", "b.nii.gz"),
    ]
    assert (source.name, source.modality, source.labels) == (tmp_path.name, None, None)


def test_a_folder_of_dicom_slices_is_an_image(tmp_path):
    touch(tmp_path, "images/a/1.dcm", "images/a/2.dcm", "labels/a.nii.gz")
    (pair,) = read_source(tmp_path).pairs
    assert (pair.case, pair.image) == ("a", tmp_path / "images" / "a")


def test_a_case_folder_holds_its_image_and_its_mask(tmp_path):
    touch(tmp_path, "p1/image.nii.gz", "p1/mask.nii.gz", "p2/image.nii.gz", "readme.txt")
    source = read_source(tmp_path)
    assert [pair.case for pair in source.pairs] == ["p1", "p2"]
    assert source.pairs[1].mask == tmp_path / "p2" / "mask.nii.gz"


def test_a_single_case_folder_with_names_of_its_own_is_a_source(tmp_path):
    touch(tmp_path / "abdomen", "ct.nii.gz", "labels.nii.gz")
    (pair,) = read_source(tmp_path / "abdomen", image_name="ct.nii.gz", mask_name="labels.nii.gz").pairs
    assert (pair.case, pair.image.name, pair.mask.name) == ("abdomen", "ct.nii.gz", "labels.nii.gz")


def test_both_halves_of_a_broken_pair_are_listed(tmp_path):
    touch(tmp_path, "images/a.nii.gz", "labels/b.nii.gz")
    source = read_source(tmp_path)
    assert [pair.case for pair in source.pairs] == ["a", "b"]
    assert not source.pairs[0].mask.exists()
    assert not source.pairs[1].image.exists()


@pytest.mark.parametrize(
    "names",
    [("images/a.nii", "images/a.nii.gz", "labels/a.nii.gz"), ("labels/a.nii", "labels/a.nii.gz", "images/a.nii.gz")],
)
def test_a_case_name_that_occurs_twice_is_a_problem(tmp_path, names):
    source = read_source(touch(tmp_path, *names))
    (problem,) = source.problems
    assert source.pairs == []
    assert (problem.case, problem.kind) == ("a", "duplicate case")
    assert "Give every case a name of its own." in str(problem)


def test_a_decathlon_case_that_is_listed_twice_is_a_problem(tmp_path):
    source = read_source(describe(tmp_path, DECATHLON | {"training": DECATHLON["training"] * 2}))
    assert [problem.kind for problem in source.problems] == ["duplicate case"]


@pytest.mark.parametrize(
    "name",
    ["/etc/a.nii.gz", "../a.nii.gz", "imagesTr/../../a.nii.gz", "..\\a.nii.gz", "C:\\a.nii.gz", "C:/a.nii.gz", ""],
)
@pytest.mark.parametrize("key", ["image", "label"])
def test_a_path_that_leaves_the_folder_is_a_problem_and_never_opened(tmp_path, key, name):
    entry = DECATHLON["training"][0] | {key: name}
    source = read_source(describe(tmp_path, DECATHLON | {"training": [entry]}))
    (problem,) = source.problems
    assert source.pairs == []
    assert (problem.kind, repr(name) in problem.found) == ("unsafe path", True)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (DECATHLON | {"modality": {"0": "T1", "1": "T2"}}, "2 image channels, but exactly one is supported"),
        (NNUNET | {"channel_names": {"0": "T1", "1": "T2"}}, "2 image channels, but exactly one is supported"),
        (NNUNET | {"file_ending": ".png"}, "file_ending"),
        (NNUNET | {"labels": {"background": 0, "whole": "all"}}, "labels.whole"),
        (DECATHLON | {"training": "all"}, "training"),
        ([], "content"),
    ],
)
def test_a_description_that_cannot_be_used_is_refused(tmp_path, content, sentence):
    with pytest.raises(DataError, match=r"dataset\.json") as caught:
        read_source(describe(tmp_path, content))
    assert sentence in str(caught.value)


def test_a_description_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(DataError, match=r"dataset\.json cannot be read as JSON"):
        read_source(tmp_path)


@pytest.mark.parametrize(
    ("channel", "modality"), [("CT", "CT"), ("MRI", "MR"), ("T1w", "MR"), ("FLAIR", "MR"), ("PET", None), ("CTA", None)]
)
def test_the_modality_follows_from_the_channel_where_its_name_is_known(tmp_path, channel, modality):
    assert read_source(describe(tmp_path, DECATHLON | {"modality": {"0": channel}})).modality == modality


def test_a_folder_without_volumes_is_refused_with_the_layouts(tmp_path):
    with pytest.raises(DataError, match=r"no labelled volumes.*dataset\.json.*images/ and labels/.*--image"):
        read_source(tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        read_source(tmp_path / "nowhere")


def test_labels_are_read_from_a_json_file(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text('{"1": "liver", "7": "spleen"}')
    assert read_labels(path) == {1: "liver", 7: "spleen"}


@pytest.mark.parametrize("text", ["[1]", '{"liver": 1}', "{", '{"1": ["liver"]}'])
def test_a_labels_file_that_cannot_be_used_is_refused(tmp_path, text):
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"labels\.json"):
        read_labels(path)


def test_nnunet_v1_names_a_case_without_its_channel(tmp_path):
    describe(tmp_path, DECATHLON | {"training": [{"image": "./imagesTr/c0.nii.gz", "label": "./labelsTr/c0.nii.gz"}]})
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "imagesTr" / "c0_0000.nii.gz").touch()
    (pair,) = read_source(tmp_path).pairs
    assert (pair.case, pair.image.name) == ("c0", "c0_0000.nii.gz")


def test_of_regions_the_ids_are_labels_and_a_note_says_which_have_no_name(tmp_path):
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}
    description = NNUNET | {"labels": labels, "regions_class_order": [1, 2, 3], "dataset": ONE_CASE}
    source = read_source(describe(tmp_path, description))
    assert source.labels == {0: "background", 1: "label_1", 2: "label_2", 3: "enhancing"}
    (note,) = source.notes
    assert "regions (whole, core)" in note
    assert "1, 2 have no name of their own" in note


def test_a_byte_order_mark_is_no_content(tmp_path):
    path = describe(tmp_path, NNUNET | {"dataset": ONE_CASE}) / "dataset.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_source(tmp_path).labels == {label_id: name for name, label_id in NNUNET["labels"].items()}
    (tmp_path / "labels.json").write_bytes(b'\xef\xbb\xbf{"1": "liver"}')
    assert read_labels(tmp_path / "labels.json") == {1: "liver"}


def test_a_name_that_occurs_twice_is_refused_instead_of_losing_a_label(tmp_path):
    (tmp_path / "labels.json").write_text('{"1": "liver", "1": "spleen"}')
    with pytest.raises(DataError, match="'1' occurs more than once"):
        read_labels(tmp_path / "labels.json")


def test_endings_in_capitals_are_endings(tmp_path):
    for name in ("images/A.NII.GZ", "labels/A.nii"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (pair,) = read_source(tmp_path).pairs
    assert (pair.case, pair.image.name, pair.mask.name) == ("A", "A.NII.GZ", "A.nii")
