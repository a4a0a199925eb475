"""The judge for an evaluation: the registered segmenter of a training set, trained now where there is none."""

from pathlib import Path

from medgen3d.artifacts.bundle import read_bundle
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.config.experiment import ExperimentConfig
from medgen3d.evaluation.judge import SegmenterJudge, judge_of
from medgen3d.recipes.train import plan_runs, train_stages
from medgen3d.registry.segmenters import AUTO, STAGE, find_segmenter
from medgen3d.registry.tracking import Tracking
from medgen3d.registry.versions import Version, fetch
from medgen3d.training.on_ray.fit import Progress


def judge_for(train: Path, config: ExperimentConfig, choice: str, progress: Progress) -> SegmenterJudge:
    """The judge that an evaluation is to use.

    Args:
        train: The prepared set that the generator was trained on; a Ray cluster is connected if it is to be trained on.
        config: Settings of the segmenter and its training, and where the registry lies.
        choice: `NAME@version` of a registered segmenter, or `auto`: the newest that was trained on exactly this set.
        progress: Shown while it is trained.

    Raises:
        ArtifactError: `train` is no prepared set, or the segmenter cannot be used.
        RegistryError: There is no such segmenter.
    """
    tracking = Tracking.of(config.storage)
    version = find_segmenter(tracking, choice, _identity(train) if choice == AUTO else None)
    version = version or _trained(train, config, progress)
    return judge_of(read_bundle(fetch(tracking, version)), str(version))


def _identity(root: Path) -> tuple[str, str]:
    prepared = PreparedSet(root)
    return prepared.info.name, prepared.digest


def _trained(train: Path, config: ExperimentConfig, progress: Progress) -> Version:
    (result,) = train_stages(plan_runs([STAGE], train, config, None), train, config, progress)
    if result.version is None:
        raise KeyboardInterrupt
    return result.version
