import json

import pytest

from medgen3d.artifacts.dataset_json import dataset_json

LABELS = {0: "background", 1: "anterior", 2: "posterior"}


def described(**changes):
    arguments = {
        "name": "hippocampus_synthetic",
        "description": "synthetic",
        "modality": "MR",
        "labels": LABELS,
        "case_ids": ["syn_00000", "syn_00001"],
    }
    content = dataset_json(**(arguments | changes))
    return json.loads(json.dumps(content))


def test_it_keeps_the_rules_that_nnunet_documents():
    content = described()

    assert {"channel_names", "labels", "numTraining", "file_ending"} <= content.keys()
    assert content["labels"]["background"] == 0
    ids = sorted(content["labels"].values())
    assert ids == list(range(len(ids)))
    assert content["numTraining"] == len(content["dataset"]) == 2
    assert content["file_ending"] == ".nii.gz"
    assert content["dataset"]["syn_00001"] == {
        "images": ["images/syn_00001.nii.gz"],  # one file per channel
        "label": "labels/syn_00001.nii.gz",
    }
    assert list(content["channel_names"]) == ["0"]


def test_ct_is_named_so_that_nnunet_normalises_it_as_ct():
    assert described(modality="CT")["channel_names"]["0"] == "CT"
    assert described(modality="MR")["channel_names"]["0"] != "CT"


def test_monai_reads_the_pairs_as_a_decathlon_data_set(tmp_path):
    from monai.data import load_decathlon_datalist

    (tmp_path / "dataset.json").write_text(json.dumps(described()))
    pairs = load_decathlon_datalist(tmp_path / "dataset.json", is_segmentation=True, data_list_key="training")

    assert pairs[0] == {
        "image": str(tmp_path / "images" / "syn_00000.nii.gz"),
        "label": str(tmp_path / "labels" / "syn_00000.nii.gz"),
    }
    assert len(pairs) == 2


def test_gaps_between_label_ids_are_kept():
    assert described(labels={0: "background", 5: "liver", 90: "skull"})["labels"]["skull"] == 90


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({0: "Hintergrund", 1: "a"}, {"background": 0, "a": 1}),
        ({0: "background", 1: "rib", 2: "rib"}, {"background": 0, "rib (1)": 1, "rib (2)": 2}),
        ({0: "air", 1: "background"}, {"background": 0, "background (1)": 1}),
    ],
)
def test_the_background_has_the_name_that_nnunet_wants_and_no_name_occurs_twice(labels, expected):
    assert described(labels=labels)["labels"] == expected
