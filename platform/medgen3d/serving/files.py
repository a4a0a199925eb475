"""The files of jobs: a folder per job, seen by every machine of the service.

    incoming/                       uploads that are being checked
    jobs/ID/mask.nii.gz             the mask that came with the job
    jobs/ID/work/                   what the engine has finished; gone once the job has ended
    jobs/ID/result-ATTEMPT/         the files of the result
    jobs/ID/result-ATTEMPT.zip      the same in one file

Names are made of the ids that the service gave, never of what a client sent.
"""

import logging
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Collection
from contextlib import AbstractContextManager
from pathlib import Path

_log = logging.getLogger(__name__)
_ID = re.compile(r"[0-9a-f]{32}")
_YOUNG_S = 3600.0  # folders of requests that are just being accepted are younger


def make_private_folder(folder: Path) -> None:
    """Make the service's folder, or close it to everybody but its owner: it holds results, jobs and tokens."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        folder.chmod(mode & 0o700)
        _log.warning("%s could be read by others (mode %o); it is now its owner's alone", folder, mode)


class JobFiles:
    """Where the files of jobs lie.

    Args:
        root: Folder of the service; made if it is missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()
        self._incoming = self.root / "incoming"
        self._jobs = self.root / "jobs"
        make_private_folder(self.root)
        self._incoming.mkdir(exist_ok=True)
        self._jobs.mkdir(exist_ok=True)

    def incoming(self) -> AbstractContextManager[str]:
        """A folder for one upload, gone at the end."""
        return tempfile.TemporaryDirectory(dir=self._incoming)

    def folder(self, job_id: str) -> Path:
        """The job's folder, whether it exists or not."""
        if not _ID.fullmatch(job_id):
            raise ValueError(f"no id of a job: {job_id!r}")
        return self._jobs / job_id

    def mask(self, job_id: str) -> Path:
        """The mask that came with the job."""
        return self.folder(job_id) / "mask.nii.gz"

    def work(self, job_id: str) -> Path:
        """What the engine has finished; made if it is missing."""
        work = self.folder(job_id) / "work"
        work.mkdir(parents=True, exist_ok=True)
        return work

    def result(self, job_id: str, attempt: int) -> Path:
        """The files of the result of an attempt."""
        return self.folder(job_id) / f"result-{attempt}"

    def archive(self, job_id: str, attempt: int) -> Path:
        """The result of an attempt in one file."""
        return self.folder(job_id) / f"result-{attempt}.zip"

    def keep_only_result(self, job_id: str, attempt: int | None) -> None:
        """Remove what an ended job no longer needs: work, and results of other attempts than the one that counts."""
        kept = {"mask.nii.gz"} | ({f"result-{attempt}", f"result-{attempt}.zip"} if attempt is not None else set())
        if self.folder(job_id).is_dir():
            for path in self.folder(job_id).iterdir():
                if path.name not in kept:
                    _remove(path)

    def untidy(self) -> list[str]:
        """The jobs that hold work, or results of more than one attempt: they are at work, or whoever ended one died."""
        found = []
        for folder in self._jobs.iterdir():
            names = [path.name for path in folder.iterdir()] if folder.is_dir() and _ID.fullmatch(folder.name) else []
            attempts = {name.removesuffix(".zip") for name in names if name.startswith("result-")}
            if "work" in names or len(attempts) > 1:
                found.append(folder.name)
        return found

    def remove(self, job_id: str) -> None:
        """Remove everything of a job."""
        shutil.rmtree(self.folder(job_id), ignore_errors=True)

    def sweep(self, known: Collection[str]) -> None:
        """Remove what a process that died left behind: old uploads, and folders of jobs that were never accepted."""
        then = time.time() - _YOUNG_S
        for path in [*self._incoming.iterdir(), *self._jobs.iterdir()]:
            if path.name not in known and path.stat().st_mtime < then:
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
