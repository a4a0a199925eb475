import os
import pickle
import time

import pytest

from medgen3d.artifacts.storage import Folder
from medgen3d.core.errors import DataError


def test_a_file_is_written_read_listed_and_removed(tmp_path):
    folder = Folder.of(tmp_path)
    folder.write("sub/a.bin", b"one")
    folder.write("sub/a.bin", b"two")

    assert folder.read("sub/a.bin") == b"two"
    assert folder.exists("sub/a.bin")
    assert folder.names("sub") == ["a.bin"]
    assert folder.names("absent") == []
    folder.remove("sub/a.bin")
    folder.remove("sub/a.bin")
    assert not folder.exists("sub/a.bin")


def test_a_write_that_fails_leaves_the_older_file_and_nothing_unfinished(tmp_path, monkeypatch):
    folder = Folder.of(tmp_path)
    folder.write("a", b"old")

    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        folder.write("a", b"new")
    assert folder.read("a") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_is_unfinished_is_removed_and_who_still_writes_it_begins_again(tmp_path, monkeypatch):
    folder = Folder.of(tmp_path)
    folder.write("dicom/case/1.dcm", b"whole")
    (tmp_path / "dicom" / "case" / ".1.dcm.5.unfinished").write_bytes(b"half")
    folder.remove_unfinished("dicom")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["1.dcm"]

    sync, removals = os.fsync, []

    def sync_and_remove_twice(file):  # while it is being written
        sync(file)
        if len(removals) < 2:
            removals.append(folder.remove_unfinished("dicom"))

    monkeypatch.setattr("os.fsync", sync_and_remove_twice)
    folder.write("dicom/case/2.dcm", b"new")
    assert len(removals) == 2
    assert folder.read("dicom/case/2.dcm") == b"new"
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"1.dcm", "2.dcm"}


def test_what_a_killed_run_left_unfinished_is_not_listed_and_goes_once_it_is_old(tmp_path):
    young, old = tmp_path / ".a.1.unfinished", tmp_path / ".b.2.unfinished"
    for path, age_s in ((young, 0), (old, 7200)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age_s,) * 2)
    folder = Folder.of(tmp_path)

    assert folder.names() == []
    folder.make()
    assert [path.name for path in tmp_path.iterdir()] == [".a.1.unfinished"]


def test_a_relative_folder_is_made_absolute_since_workers_run_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(Folder.of("set")) == str(tmp_path / "set")
    assert pickle.loads(pickle.dumps(Folder.of("set"))) == Folder.of("set")


def test_an_address_that_nobody_understands_is_refused_and_keys_are_never_shown():
    secret = Folder("s3://key:secret@bucket/set?endpoint_override=127.0.0.1:1")
    assert str(secret) == "s3://bucket/set"
    with pytest.raises(DataError, match="ftp://somewhere is no address"):
        Folder.of("ftp://somewhere")
