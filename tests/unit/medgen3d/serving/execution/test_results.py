import json
import zipfile

import numpy as np
import pytest

from medgen3d.artifacts.synthetic_set import SyntheticSet
from medgen3d.core.resample import resample
from medgen3d.serving.execution.job_planning import plan_cases
from medgen3d.serving.execution.results import AnsweredRequest, files_of, write_result
from medgen3d.serving.schemas import JobRequest


def drawn(orders):
    pairs = []
    for order in orders:
        rng = np.random.default_rng(order.seeds["refiner"])
        image = rng.uniform(-1, 1, order.shape).astype(np.float32)
        pairs.append((image, rng.integers(0, 3, order.shape).astype(np.uint8)))
    return pairs


def written(folder, knee, **changes):
    request = JobRequest(pipeline="knee", count=2, **changes)
    orders = plan_cases(request, knee, None)
    folder.mkdir(exist_ok=True)
    size = write_result(folder / "result-1", folder / "result-1.zip", request, knee, orders, drawn(orders))
    assert size == (folder / "result-1.zip").stat().st_size
    return folder, orders


def test_a_result_is_a_synthetic_set_in_a_folder_and_in_a_zip_file(tmp_path, knee):
    folder, orders = written(tmp_path / "a", knee, seed=5)
    found = SyntheticSet(folder / "result-1")
    assert found.case_ids == ["syn_00000", "syn_00001"]
    assert (found.info.pipeline_name, found.info.pipeline_version, found.info.seed) == ("knee", 3, 5)
    assert found.info.weights_sha256.keys() == {"mask_generator", "image_sequence_generator", "refiner"}
    image, mask = found.read("syn_00000")
    expected_image, expected_mask = knee.dataset.as_volumes(*drawn(orders)[0])
    np.testing.assert_array_equal(mask.voxels, expected_mask.voxels)
    np.testing.assert_array_equal(image.voxels, np.rint(expected_image.voxels))
    with zipfile.ZipFile(folder / "result-1.zip") as archive:
        assert archive.testzip() is None
        files = files_of(folder / "result-1")
        assert archive.namelist() == list(files)
        assert all(archive.read(name) == path.read_bytes() for name, path in files.items())


def test_the_request_comes_back_with_the_version_that_answered_it(tmp_path, knee):
    folder, _ = written(tmp_path / "a", knee, seed=5, style=2)
    answered = AnsweredRequest.model_validate_json((folder / "result-1" / "request.json").read_text())
    assert (answered.pipeline, answered.pipeline_version) == ("knee@3", 3)
    assert answered.request == JobRequest(pipeline="knee", count=2, seed=5, style=2)


def test_the_same_request_gives_the_same_bytes_and_another_one_others(tmp_path, knee):
    archives = [
        (written(tmp_path / name, knee, seed=seed)[0] / "result-1.zip").read_bytes()
        for name, seed in (("a", 5), ("b", 5), ("c", 6))
    ]
    assert archives[0] == archives[1] != archives[2]


def test_pairs_are_resampled_images_linearly_and_masks_to_the_nearest(tmp_path, knee):
    folder, orders = written(tmp_path / "a", knee, spacing_mm=(1.5, 0.5, 0.75))
    found = SyntheticSet(folder / "result-1")
    image, mask = found.read("syn_00001")
    before_image, before_mask = knee.dataset.as_volumes(*drawn(orders)[1])
    assert found.info.spacing_mm == (1.5, 0.5, 0.75)
    assert image.spacing_mm == pytest.approx((1.5, 0.5, 0.75))
    np.testing.assert_array_equal(mask.voxels, resample(before_mask, (1.5, 0.5, 0.75), "nearest").voxels)
    np.testing.assert_allclose(image.voxels, resample(before_image, (1.5, 0.5, 0.75), "linear").voxels, atol=0.5)
    assert mask.voxels.shape[0] == 2 * before_mask.voxels.shape[0]


def test_an_attempt_that_was_cut_off_is_written_over(tmp_path, knee):
    left = tmp_path / "a" / "result-1.unfinished"
    left.mkdir(parents=True)
    (left / "rest").write_text("of a process that was killed")
    folder, _ = written(tmp_path / "a", knee)
    assert {path.name for path in folder.iterdir()} == {"result-1", "result-1.zip"}
    assert "rest" not in files_of(folder / "result-1")
    assert json.loads((folder / "result-1" / "dataset.json").read_text())["phantom"] is True
