import os
import time
from pathlib import Path

import pytest

from medgen3d.serving.files import JobFiles

ONE, OTHER = "0" * 32, "f" * 32


@pytest.fixture
def files(tmp_path: Path) -> JobFiles:
    return JobFiles(tmp_path / "serving")


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


@pytest.mark.parametrize("name", ["..", "", "../" + "0" * 29, "0" * 31, "0" * 33, "G" * 32, "0" * 32 + "\n"])
def test_nothing_but_an_id_becomes_a_path(files, name):
    with pytest.raises(ValueError, match="no id of a job"):
        files.folder(name)


def test_of_an_ended_job_only_mask_and_result_are_kept(files):
    work = files.work(ONE)
    (work / "batch-00000.npz").touch()
    files.mask(ONE).touch()
    for attempt in (1, 2):
        files.result(ONE, attempt).mkdir()
        files.archive(ONE, attempt).touch()
    files.keep_only_result(ONE, 2)
    assert {path.name for path in files.folder(ONE).iterdir()} == {"mask.nii.gz", "result-2", "result-2.zip"}
    files.keep_only_result(ONE, None)
    assert {path.name for path in files.folder(ONE).iterdir()} == {"mask.nii.gz"}
    files.keep_only_result(OTHER, None)  # there is nothing


def test_only_old_folders_of_no_job_are_swept(files):
    for job_id in (ONE, OTHER):
        files.work(job_id)
    young = files.root / "incoming" / "young"
    old = files.root / "incoming" / "old"
    for folder in (young, old):
        folder.mkdir()
    for path in (files.folder(ONE), files.folder(OTHER), old):
        age(path, 7200)
    files.sweep({ONE})
    assert files.folder(ONE).exists()
    assert not files.folder(OTHER).exists()
    assert young.exists()
    assert not old.exists()


def test_an_incoming_folder_is_gone_at_its_end(files):
    with files.incoming() as folder:
        (Path(folder) / "x").touch()
    assert list((files.root / "incoming").iterdir()) == []
