"""`usefulness.json`: the Dice of segmenters that were trained on real cases, on synthetic pairs, or on both.

It is written after every trial, so that a study that was stopped goes on where it was.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from medgen3d.artifacts.report import EvaluatedPipeline
from medgen3d.artifacts.versioned_json import read_versioned, write_versioned

FILE = "usefulness.json"
Arm = Literal["real", "synthetic", "real+synthetic"]
_REMEDY = "Measure again with `medgen3d usefulness` and another --out."


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Size(_Part):
    """One number of real cases, with the generator and the pairs that were used for it.

    num_cases: Real training cases; the larger sizes hold those of the smaller ones.
    dataset_digest: Of the prepared set that the generator was trained on, which holds no other training cases.
    num_pairs: Synthetic pairs that the generator drew for training segmenters.
    pairs_seed: The seed that they were drawn with.
    pipeline: The generator.
    """

    num_cases: int
    dataset_digest: str
    num_pairs: int
    pairs_seed: int
    pipeline: EvaluatedPipeline


class Trial(_Part):
    """One segmenter, trained and tested.

    arm: What it was trained on.
    num_cases: Real cases that it was trained on, or that the generator of its pairs was trained on.
    seed: Number of the repetition; all arms and sizes of one repetition begin with the same weights.
    dice: Mean Dice over the test cases by label title; without labels that are nowhere in the test cases.
    seconds: Of training and testing.
    """

    arm: Arm
    num_cases: int
    seed: int
    dice: dict[str, float]
    seconds: float

    @property
    def mean_dice(self) -> float:
        """Mean over the labels."""
        return float(np.mean(list(self.dice.values())))


class UsefulnessResults(_Part):
    """`usefulness.json`.

    dataset, dataset_digest: The prepared set.
    labels: Titles of its labels, without the background.
    num_train: Its training cases; the size that has as many is the one with all.
    test_cases: What every segmenter is tested on.
    seed: Of the experiment.
    settings: The parts of the configuration that decide how segmenters are trained.
    mlflow_run: Run id in MLflow, where the trials are logged.
    """

    schema_version: int = 1
    dataset: str
    dataset_digest: str
    phantom: bool
    labels: list[str]
    num_train: int
    test_cases: list[str]
    seed: int
    settings: dict[str, Any]
    mlflow_run: str | None = None
    sizes: list[Size] = []
    trials: list[Trial] = []

    def of(self, arm: Arm, num_cases: int) -> dict[int, Trial]:
        """The finished trials of an arm and size, by seed."""
        found = [trial for trial in self.trials if (trial.arm, trial.num_cases) == (arm, num_cases)]
        return {trial.seed: trial for trial in sorted(found, key=lambda trial: trial.seed)}

    def with_size(self, size: Size) -> "UsefulnessResults":
        """The same with one size more."""
        sizes = sorted([*self.sizes, size], key=lambda each: each.num_cases)
        return self.model_copy(update={"sizes": sizes})

    def with_trials(self, trials: Sequence[Trial]) -> "UsefulnessResults":
        """The same with more trials."""
        return self.model_copy(update={"trials": [*self.trials, *trials]})


def write_usefulness(root: Path, results: UsefulnessResults) -> None:
    """Write the study's file into its folder, which is made where it is missing; whole or not at all."""
    root.mkdir(parents=True, exist_ok=True)
    write_versioned(root / FILE, results)


def read_usefulness(root: Path) -> UsefulnessResults:
    """The results in a study's folder.

    Raises:
        ArtifactError: The file is missing or damaged, or was written by another version.
    """
    return read_versioned(root / FILE, UsefulnessResults, _REMEDY)
