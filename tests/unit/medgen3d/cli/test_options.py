from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from medgen3d.cli.options import ConfigOptions, RayOptions, grouped
from medgen3d.core.errors import ConfigError


def given(words: list[str]) -> RayOptions:
    """The group that a command gets."""
    app, seen = typer.Typer(), []

    @app.command()
    @grouped
    def command(
        first: Annotated[int, typer.Option()], *, options: RayOptions, last: Annotated[bool, typer.Option()] = False
    ) -> None:
        seen.append((first, options, last))

    result = CliRunner().invoke(app, ["--first", "3", *words], env={"RAY_ADDRESS": ""})
    assert result.exit_code == 0, result.output
    ((first, options, last),) = seen
    assert (first, last) == (3, False)
    return options


def test_a_command_gets_a_group_as_one_object():
    options = given(["--preset", "smoke", "--preset", "thoracic_ct", "--set", "seed=7", "--dry-run", "-v"])
    assert options == RayOptions(preset=["smoke", "thoracic_ct"], override=["seed=7"], dry_run=True, verbose=True)


def test_options_that_are_left_out_make_the_default_configuration():
    assert given([]).load() == ConfigOptions().load()


def test_what_a_command_adds_wins_over_what_is_set():
    assert ConfigOptions(override=["seed=7"]).load("seed=8").seed == 8


def test_a_setting_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match=r"did you mean 'refiner\.crop'"):
        ConfigOptions(override=["refiner.crp=3"]).load()


def test_only_what_is_set_of_a_stage_is_its_options():
    assert ConfigOptions(override=["refiner.crop=32", "seed=7"]).of_stages() == {"refiner": {"crop": 32}}
