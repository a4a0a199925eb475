"""A stage, made of its configuration and of what it must know of the data set that it is trained on."""

from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.config.experiment import ExperimentConfig
from medgen3d.core.errors import ConfigError
from medgen3d_stages.catalogue import make_stage
from medgen3d_stages.contract import DataSpec, Stage


def data_spec(prepared: PreparedSet) -> DataSpec:
    """The facts about a prepared set that the stages must know."""
    return DataSpec(
        num_labels=len(prepared.info.label_table),
        plane=prepared.info.plane,
        spacing_mm=prepared.info.spacing_mm,
        max_depth=max(depth for depth, _, _ in prepared.info.shapes("train")),
    )


def stage_for(name: str, config: ExperimentConfig, prepared: PreparedSet) -> Stage:
    """The stage as the configuration and the data set describe it.

    Raises:
        ConfigError: The options do not go with the size of the data set.
    """
    try:
        return make_stage(name, getattr(config, name), data_spec(prepared))
    except ValueError as error:
        raise ConfigError(f"{prepared.root}: {error}") from error
