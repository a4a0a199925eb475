import json

import numpy as np
import pytest

from medgen3d.core.errors import DataError
from medgen3d.evaluation.sets import open_real
from medgen3d.evaluation.summary import summarise


def test_real_hippocampi_have_the_volumes_and_components_that_others_counted(real_data):
    found = open_real(real_data / "hippocampus", (1.0, 1.0, 1.0))
    cases = [summarise(*found.read(case_id), len(found.labels)) for case_id in found.case_ids]

    assert len(cases) == 200
    assert np.mean([case.num_voxels for case in cases], axis=0)[1:] == pytest.approx([1724, 1582], abs=1)
    assert np.mean([case.num_components for case in cases], axis=0)[1:] == pytest.approx([1.02, 1.05], abs=0.006)


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        '{"training": []}',
        '{"labels": {"1": "liver"}}',
        '{"labels": {"liver": "one"}, "training": []}',
        '{"labels": {"1": "liver"}, "training": ["imagesTr/a.nii.gz"]}',
        "[]",
    ],
)
def test_a_description_that_is_no_decathlons_is_refused_in_one_sentence(tmp_path, content):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(DataError, match=r"dataset\.json is not valid .* Run `medgen3d ingest`"):
        open_real(tmp_path, (1.0, 1.0, 1.0))


def test_a_missing_file_is_named(tmp_path):
    pairs = [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"1": "liver"}, "training": pairs}))
    found = open_real(tmp_path, (1.0, 1.0, 1.0))
    with pytest.raises(DataError, match=r"imagesTr/a\.nii\.gz: found no such file"):
        found.read("a")
