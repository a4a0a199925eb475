"""Sampling options that a user chooses at synthesis, in place of those that a bundle was trained with."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from medgen3d.artifacts.bundle import Bundle, BundleInfo
from medgen3d.core.errors import ConfigError


def with_options(bundle: Bundle, named: Mapping[str, Any]) -> Bundle:
    """The bundle as if it had been trained with the named options; nothing is written.

    Args:
        bundle: A trained stage.
        named: Options of the stage that the user named; whatever is not named stays as the bundle has it.

    Raises:
        ConfigError: An option differs that the networks depend on, or the options do not fit together.
    """
    if not named:
        return bundle
    stage, config = bundle.info.stage, bundle.config()
    changed = {option: value for option, value in named.items() if value != getattr(config, option)}
    for option, value in changed.items():
        if option not in config.SAMPLING_FIELDS:
            raise ConfigError(
                f"{stage}.{option} is set to {value}, but the trained stage has {getattr(config, option)}; only "
                f"{', '.join(config.SAMPLING_FIELDS)} can be chosen at synthesis, so leave it out or train the stage "
                "again"
            )
    try:
        dataclasses.replace(config, **changed)
    except ValueError as error:
        raise ConfigError(f"{stage}: {error}") from error
    content = bundle.info.model_dump() | {"stage_config": bundle.info.stage_config | changed}
    return dataclasses.replace(bundle, info=BundleInfo.model_validate(content))


def options_changed(trained: Bundle, used: Bundle) -> dict[str, Any]:
    """The options that `with_options` changed, with the values that are used."""
    before = trained.info.stage_config
    return {
        option: value
        for option, value in used.info.stage_config.items()
        if option not in before or before[option] != value
    }
