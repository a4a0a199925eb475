import numpy as np
import pytest

from medgen3d.serving.execution.stage_checkpoints import StageCheckpoints, identity_of


def test_an_array_comes_back_as_it_was_kept_mapped_and_read_only(tmp_path):
    kept = StageCheckpoints(tmp_path, 3, "abc")
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    kept.write("refiner", array)
    found = kept.read("refiner")
    np.testing.assert_array_equal(found, array)
    assert found.dtype == np.float32
    assert isinstance(found, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 0
    assert [path.name for path in tmp_path.iterdir()] == ["00003-refiner-abc.npy"]


def test_nothing_is_found_where_nothing_was_kept_or_it_was_dropped(tmp_path):
    kept = StageCheckpoints(tmp_path, 0, "abc")
    assert kept.read("refiner") is None
    kept.drop("refiner")
    kept.write("refiner", np.zeros(3))
    kept.drop("refiner")
    assert kept.read("refiner") is None


def test_what_another_width_or_device_made_is_not_taken_for_ones_own(tmp_path):
    here, there = (identity_of(widths={"mask_generator": width}, threads=1, device="cpu") for width in (1, 8))
    StageCheckpoints(tmp_path, 0, here).write("mask_generator", np.ones(3))
    assert StageCheckpoints(tmp_path, 0, there).read("mask_generator") is None
    assert here == identity_of(device="cpu", threads=1, widths={"mask_generator": 1})


def test_a_file_that_is_half_written_is_not_there(tmp_path):
    kept = StageCheckpoints(tmp_path, 0, "abc")
    with pytest.raises(ValueError, match="pickle"):
        kept.write("refiner", np.array([object()]))
    assert kept.read("refiner") is None


def test_a_job_whose_folder_is_gone_keeps_nothing(tmp_path):
    with pytest.raises(FileNotFoundError):
        StageCheckpoints(tmp_path / "gone", 0, "abc").write("refiner", np.zeros(3))
