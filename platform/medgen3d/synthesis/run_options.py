"""The options of a run of bulk synthesis, besides the number of pairs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from medgen3d.artifacts.pair_files import Format
from medgen3d.core.errors import ConfigError
from medgen3d.synthesis.gates import GateRules


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """What a user chooses besides the number of pairs.

    plan: A plan file instead of a number.
    masks: A prepared set, a synthetic set or a Decathlon folder, seen by every machine: images are drawn for its
        masks, and there are at most as many cases. None: masks are drawn.
    split: Which cases of a prepared set `masks` means.
    sampling: {stage: {option: value}} in place of the bundles' own sampling options, as
        `medgen3d.config.load.named_options` finds them.
    gates: What cases are held to.
    retry_failed: Draw cases again that were given up.
    format: What pairs are written as.
    licence: Of the training data, for the data set card.
    idle_gates: Gates that do not run, and why, for the data set card.
    command: The command that goes on with the run, for whoever finds it.
    """

    plan: Path | None = None
    masks: Path | None = None
    split: str = "test"
    sampling: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}))
    gates: GateRules = field(default_factory=GateRules)
    retry_failed: bool = False
    format: Format = "nifti"
    licence: str | None = None
    idle_gates: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    command: str = ""


def known_format(name: str) -> Format:
    """The format of this name.

    Raises:
        ConfigError: There is none.
    """
    for known in get_args(Format):
        if name == known:
            return known
    raise ConfigError(f"--format must be {', '.join(get_args(Format))}, got {name!r}")
