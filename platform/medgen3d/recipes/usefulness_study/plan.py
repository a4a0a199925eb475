"""The plan of a study: the numbers of real cases, the cases that each generator sees, and the trials.

DIR/usefulness.json      the results
DIR/n010/prepared        the ten cases that the generator may see (with all cases: the prepared set itself)
DIR/n010/runs            its training, and a registry of its own
DIR/n010/pairs           what it drew
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.subset import nested_order
from medgen3d.artifacts.synthetic_set import SyntheticSet
from medgen3d.artifacts.usefulness_results import FILE, Arm, UsefulnessResults, read_usefulness
from medgen3d.config.experiment import CHAIN, ExperimentConfig, StorageConfig
from medgen3d.core.errors import ConfigError, DataError
from medgen3d.training.run import differences

_USUAL_SIZES = (5, 10, 20)
_ALL = "all"


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedSize:
    """One number of real cases.

    case_ids: The real training cases.
    folder: Of everything that is made for this size.
    whole: The prepared set, if these are all its training cases.
    pipeline: `NAME@3` of the generator that is used; None: one is trained.
    """

    case_ids: tuple[str, ...]
    folder: Path
    whole: Path | None
    pipeline: str | None

    @property
    def num_cases(self) -> int:
        return len(self.case_ids)

    @property
    def prepared(self) -> Path:
        """The prepared set that the generator is trained on."""
        return self.whole or self.folder / "prepared"

    @property
    def pairs(self) -> Path:
        return self.folder / "pairs"

    @property
    def num_pairs_there(self) -> int:
        """Pairs that are drawn already."""
        return len(SyntheticSet(self.pairs).case_ids) if (self.pairs / "manifest.parquet").exists() else 0

    @property
    def storage(self) -> StorageConfig:
        """A place of its own for the generator, so that it stays out of the user's registry."""
        storage = StorageConfig(root=self.folder / "runs")
        return storage.model_copy(update={"tracking_uri": storage.mlflow_uri})


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedTrial:
    """One segmenter to train and test."""

    arm: Arm
    size: PlannedSize
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """A planned study.

    data: The prepared set, as an absolute path.
    num_seeds: Repetitions of every trial.
    num_pairs: Synthetic pairs of every generator.
    nothing_yet: What its results are before the first trial.
    """

    data: Path
    out: Path
    config: ExperimentConfig
    sizes: tuple[PlannedSize, ...]
    num_seeds: int
    num_pairs: int
    nothing_yet: UsefulnessResults

    @property
    def trials(self) -> list[PlannedTrial]:
        """Seed by seed, so that a study that is stopped has compared all arms as often as it could."""
        return [
            PlannedTrial(arm=arm, size=size, seed=seed)
            for seed in range(self.num_seeds)
            for size in self.sizes
            for arm in get_args(Arm)
            if arm != "synthetic" or size.whole
        ]

    def how_pairs_come(self, size: PlannedSize) -> str:
        """The origin of the size's pairs, in a few words."""
        missing = self.num_pairs - size.num_pairs_there
        if missing <= 0:
            return "are there"
        steps = " + ".join(str(getattr(self.config.training, stage).steps) for stage in CHAIN)
        source = size.pipeline or f"a generator trained on these cases ({steps} steps)"
        return f"{missing} drawn by {source}"

    def unfinished(self, results: UsefulnessResults) -> list[PlannedTrial]:
        """The trials whose results are not there."""
        return [trial for trial in self.trials if trial.seed not in results.of(trial.arm, trial.size.num_cases)]


def plan_study(
    data: Path,
    out: Path,
    config: ExperimentConfig,
    *,
    sizes: str | None = None,
    num_seeds: int = 3,
    num_pairs: int | None = None,
    pipeline: str | None = None,
) -> Study:
    """Plan a study; nothing is written.

    Args:
        data: A prepared set with training and test cases.
        out: Folder of the study, new or of the same study.
        config: Of the generators' stages and of the segmenter.
        sizes: Numbers of real cases with commas between them; `all` means all training cases. None: 5, 10, 20 and all,
            as far as there are as many.
        num_seeds: Repetitions of every trial.
        num_pairs: Synthetic pairs that each generator draws; None: as many as there are real training cases.
        pipeline: Reference of the generator for all cases; None: it is trained like the others.

    Raises:
        ConfigError: A number is out of range.
        DataError: The set has no training or no test cases.
    """
    data, out = data.absolute(), out.absolute()  # workers run in folders of their own
    prepared = PreparedSet(data)
    order = nested_order(prepared.info, config.seed)
    if not order or not prepared.info.case_ids("test"):
        raise DataError(
            f"{data} has {len(order)} training and {len(prepared.info.case_ids('test'))} test cases; usefulness needs "
            "both. Ingest with other ingest.split_shares."
        )
    numbers = _numbers(sizes, len(order))
    if pipeline and len(order) not in numbers:
        raise ConfigError("--pipeline stands for the generator of all training cases; add all to --sizes")
    if num_seeds < 1 or (num_pairs is not None and num_pairs < 1):
        raise ConfigError(f"--seeds and --synthetic must be at least 1, got {num_seeds} and {num_pairs}")
    return Study(
        data=data,
        out=out,
        config=config,
        sizes=tuple(_size(number, order, data, out, pipeline) for number in numbers),
        num_seeds=num_seeds,
        num_pairs=num_pairs or len(order),
        nothing_yet=_nothing_yet(prepared, config),
    )


def results_so_far(study: Study) -> UsefulnessResults:
    """The results in the study's folder, or those of a study that has not begun.

    Raises:
        DataError: The folder holds another study.
    """
    if not (study.out / FILE).exists():
        return study.nothing_yet
    found = read_usefulness(study.out)
    for field, before, now in differences(_identity(found), _identity(study.nothing_yet)):
        raise DataError(f"{study.out} holds a study with {field} {before}, but now it is {now}. {_REMEDY}")
    for size in found.sizes:
        if size.num_pairs != study.num_pairs and size.num_cases in {each.num_cases for each in study.sizes}:
            raise DataError(
                f"{study.out} holds trials with {size.num_pairs} synthetic pairs for {size.num_cases} cases, but now "
                f"{study.num_pairs} are asked for. {_REMEDY}"
            )
    return found


def _identity(results: UsefulnessResults) -> dict[str, Any]:
    return {"dataset_digest": results.dataset_digest, "seed": results.seed} | results.settings


_REMEDY = "Repeat it as it was begun, or choose another --out."


def _numbers(sizes: str | None, num_train: int) -> list[int]:
    """The sizes in ascending order, each once."""
    if sizes is None:
        return [*(number for number in _USUAL_SIZES if number < num_train), num_train]
    words = [word.strip() for word in sizes.split(",")]
    numbers = [num_train if word == _ALL else int(word) if word.isdecimal() else 0 for word in words]
    for word, number in zip(words, numbers, strict=True):
        if not 1 <= number <= num_train:
            raise ConfigError(f"--sizes are numbers from 1 to {num_train}, the training cases, or all; got {word!r}")
    return sorted(set(numbers))


def _size(number: int, order: list[str], data: Path, out: Path, pipeline: str | None) -> PlannedSize:
    is_all = number == len(order)
    return PlannedSize(
        case_ids=tuple(order[:number]),
        folder=out / f"n{number:03d}",
        whole=data if is_all else None,
        pipeline=pipeline if is_all else None,
    )


def _nothing_yet(prepared: PreparedSet, config: ExperimentConfig) -> UsefulnessResults:
    tree = config.model_dump(mode="json")
    return UsefulnessResults(
        dataset=prepared.info.name,
        dataset_digest=prepared.digest,
        phantom=prepared.info.phantom,
        labels=list(prepared.info.label_table.titles[1:]),
        num_train=len(prepared.info.case_ids("train")),
        test_cases=prepared.info.case_ids("test"),
        seed=config.seed,
        settings={
            "segmenter": tree["segmenter"],
            "training": {"segmenter": tree["training"]["segmenter"]},
            "real_share": config.usefulness.real_share,
        },
    )
