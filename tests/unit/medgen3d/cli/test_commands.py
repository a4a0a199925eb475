import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from medgen3d import __version__, cli
from medgen3d.config.load import load_config, preset_names


def run(*arguments: object):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def commands(command: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if not hasattr(command, "commands") or command.invoke_without_command:
        yield above
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*above, name))


COMMANDS = list(commands(get_command(cli.app)))
GROUPS = [(), ("pipeline",), ("config",), ("tokens",)]


def example(command: tuple[str, ...]) -> str:
    """The last line of a command's help."""
    result = run(*command, "--help")
    assert result.exit_code == 0
    return result.output.strip().splitlines()[-1].strip()


def test_all_verbs_are_there():
    verbs = {command[0] for command in COMMANDS}
    making = {"phantom", "ingest", "train", "pipeline", "pipelines", "synthesize"}
    assert verbs == making | {"verify", "evaluate", "usefulness", "config", "demo"} | {"serve", "tokens", "request"}


@pytest.mark.parametrize("command", COMMANDS + GROUPS, ids=" ".join)
def test_help_of_every_command_ends_with_an_example_of_it(command: tuple[str, ...]):
    assert example(command).startswith(" ".join(("Example: medgen3d", *command)))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_an_example_names_only_options_that_there_are(command: tuple[str, ...]):
    options = {word for word in example(command).split() if word.startswith("--")}
    shown = run(*command, "--help").output
    assert [option for option in options if shown.count(option) < 2] == []  # once in the table, once in the example


@pytest.mark.parametrize(
    "command", [("ingest",), ("train",), ("synthesize",), ("demo",), ("usefulness",)], ids=" ".join
)
def test_commands_that_work_long_have_a_dry_run(command: tuple[str, ...]):
    assert "--dry-run" in run(*command, "--help").output


def test_version_is_the_packages():
    assert run("--version").output.strip() == __version__


def test_python_dash_m_is_the_same_program():
    shown = subprocess.run([sys.executable, "-m", "medgen3d", "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == __version__


def test_config_show_prints_a_configuration_that_loads_to_the_same(tmp_path: Path):
    shown = run("config", "show", "--no-costs", "--preset", "smoke", "--set", "seed=7")
    (tmp_path / "shown.yaml").write_text(shown.stdout)
    assert load_config(tmp_path / "shown.yaml") == load_config(presets=["smoke"], overrides=["seed=7"])
    again = run("config", "show", "--no-costs", "--config", tmp_path / "shown.yaml")
    assert again.stdout == shown.stdout


def test_config_show_shows_what_does_not_fit_the_size_and_says_so():
    option = "refiner.attention_levels=[true, true, true]"
    shown = run("config", "show", "--set", option)
    assert shown.exit_code == 0
    assert "attention_levels" in shown.stdout
    last = shown.stdout.splitlines()[-1]
    assert last.startswith("# Costs of cases of 128 x 256 x 256 voxels: none. refiner: level 1")
    assert last.endswith("--size counts for another size.")


@pytest.mark.parametrize("size", ["128x256", "0x256x256", "large"])
def test_a_size_that_is_none_is_refused_with_a_sentence(size: str):
    refused = run("config", "show", "--size", size)
    assert refused.exit_code == 2
    assert f"--size must be three whole numbers D x H x W above 0, such as 128x256x256; found {size!r}" in " ".join(
        refused.stderr.split()
    )


def test_config_presets_lists_every_preset_and_prints_one_with_its_comments():
    listed = run("config", "presets").stdout
    for name in preset_names():
        assert name in listed
    printed = run("config", "presets", "thoracic_ct").stdout
    assert "# Thoracic CT" in printed
    assert yaml.safe_load(printed)["ingest"]["modality"] == "CT"


def test_phantom_writes_as_many_cases_as_asked_for_and_says_what_comes_next(tmp_path: Path):
    out = tmp_path / "phantoms"
    result = run("phantom", "--kind", "brain_mr", "--count", 2, "--seed", 4, "--out", out)
    assert result.exit_code == 0
    assert len(list((out / "imagesTr").iterdir())) == len(list((out / "labelsTr").iterdir())) == 2
    assert json.loads((out / "dataset.json").read_text())["phantom"] is True
    assert f"medgen3d ingest {out}" in result.stdout


def test_progress_goes_to_stderr_and_results_to_stdout(tmp_path: Path):
    result = run("phantom", "--count", 2, "--out", tmp_path / "phantoms")
    assert "2 of 2" in result.stderr
    assert "2 of 2" not in result.stdout
