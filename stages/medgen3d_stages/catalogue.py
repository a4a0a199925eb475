"""The stages by name."""

from medgen3d_stages.contract import DataSpec, Stage
from medgen3d_stages.image_sequence_generator.config import ImageSequenceGeneratorConfig
from medgen3d_stages.image_sequence_generator.stage import ImageSequenceGenerator
from medgen3d_stages.mask_generator.config import MaskGeneratorConfig
from medgen3d_stages.mask_generator.stage import MaskGenerator
from medgen3d_stages.refiner.config import RefinerConfig
from medgen3d_stages.refiner.stage import Refiner
from medgen3d_stages.segmenter.config import SegmenterConfig
from medgen3d_stages.segmenter.stage import Segmenter

StageConfig = MaskGeneratorConfig | ImageSequenceGeneratorConfig | RefinerConfig | SegmenterConfig

_STAGES = {
    "mask_generator": (MaskGeneratorConfig, MaskGenerator),
    "image_sequence_generator": (ImageSequenceGeneratorConfig, ImageSequenceGenerator),
    "refiner": (RefinerConfig, Refiner),
    "segmenter": (SegmenterConfig, Segmenter),
}
STAGE_NAMES = tuple(_STAGES)
"""The chain in its order, then its judge."""


def config_type(name: str) -> type[StageConfig]:
    """The config dataclass of a stage. Raises KeyError for an unknown name."""
    return _STAGES[name][0]


def make_stage(name: str, config: StageConfig, spec: DataSpec) -> Stage:
    """A stage from its name, its config and what is known of the data. Raises KeyError for an unknown name."""
    return _STAGES[name][1](config, spec)
