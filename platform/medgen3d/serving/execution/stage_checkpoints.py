"""Checkpoints of a job: the finished arrays of each stage, in the job's folder, from which the next attempt goes on."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgen3d.artifacts.provenance import config_hash


@dataclass(frozen=True, slots=True)
class StageCheckpoints:
    """The finished stages of one case of a job.

    folder: The job's.
    number: The case's place in the job; its name never becomes a path.
    identity: What the arrays depend on beside the job: another width or device may round otherwise, and its arrays are
        not to be mixed with these.
    """

    folder: Path
    number: int
    identity: str

    def path(self, stage: str) -> Path:
        return self.folder / f"{self.number:05d}-{stage}-{self.identity}.npy"

    def write(self, stage: str, array: NDArray[Any]) -> None:
        """Keep the array that a stage made; the file is whole or not there."""
        path = self.path(stage)
        unfinished = path.with_suffix(f".{os.getpid()}.tmp")
        with unfinished.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        unfinished.replace(path)

    def read(self, stage: str) -> NDArray[Any] | None:
        """The array that was kept, mapped from the file and read-only; None if there is none."""
        try:
            return np.load(self.path(stage), mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            return None

    def drop(self, stage: str) -> None:
        """Remove an array that nothing needs any more."""
        self.path(stage).unlink(missing_ok=True)


def identity_of(**facts: object) -> str:
    """A short name for facts that decide about the last bits of results."""
    return config_hash(facts)[:12]
