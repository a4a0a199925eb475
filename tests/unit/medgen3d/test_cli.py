import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from medgen3d import __version__, cli
from medgen3d.config.load import load_config, preset_names


def run(*arguments: object):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def commands(app: typer.Typer, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for command in app.registered_commands:
        yield (*above, command.name or command.callback.__name__)
    for group in app.registered_groups:
        yield from commands(group.typer_instance, (*above, group.name))


COMMANDS = list(commands(cli.app))
GROUPS = [(), ("pipeline",), ("config",), ("tokens",)]


def example(command: tuple[str, ...]) -> str:
    """The last line of a command's help."""
    result = run(*command, "--help")
    assert result.exit_code == 0
    return result.output.strip().splitlines()[-1].strip()


def sentence(result) -> str:
    """The one line on stderr of a command that refuses its input."""
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


def test_all_verbs_are_there():
    verbs = {command[0] for command in COMMANDS}
    making = {"phantom", "ingest", "train", "pipeline", "pipelines", "synthesize"}
    assert verbs == making | {"evaluate", "usefulness", "config", "demo"} | {"serve", "tokens", "request"}


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
    shown = run("config", "show", "--preset", "smoke", "--set", "seed=7")
    (tmp_path / "shown.yaml").write_text(shown.stdout)
    assert load_config(tmp_path / "shown.yaml") == load_config(presets=["smoke"], overrides=["seed=7"])
    again = run("config", "show", "--config", tmp_path / "shown.yaml")
    assert again.stdout == shown.stdout


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


EVALUATE = ("evaluate", "--real", ".", "--synthetic", ".", "--out", "new")
BAD_INPUT = [
    (("config", "show", "--preset", "smok"), ["unknown preset 'smok'", "did you mean 'smoke'?"]),
    (("config", "presets", "smok"), ["unknown preset 'smok'"]),
    (("config", "show", "--config", "absent.yaml"), ["absent.yaml", "No such file"]),
    (("config", "show", "--set", "refiner.crp=3"), ["'refiner.crp'", "did you mean 'refiner.crop'?"]),
    (("config", "show", "--set", "refiner.crop=wide"), ["refiner.crop", "'wide'", "integer"]),
    (("phantom", "--kind", "knee_mr", "--out", "new"), ["'knee_mr'", "thorax_ct, brain_mr"]),
    (("phantom", "--count", "0", "--out", "new"), ["at least 1, got 0"]),
    (("train", "refinr", "--data", "prepared"), ["'refinr'", "mask_generator, image_sequence_generator, refiner"]),
    (("train", "refiner", "--data", "absent"), ["absent", "medgen3d ingest"]),
    (("train", "refiner", "--data", "absent", "--preset", "smok"), ["unknown preset 'smok'"]),
    (("ingest", "absent", "--out", "new", "--address", "nowhere"), ["--address 'nowhere'", "host:port"]),
    (("ingest", "absent", "--out", "new", "--address", "127.0.0.1:1"), ["no Ray cluster answers at 127.0.0.1:1"]),
    (("ingest", "absent", "--out", "new", "--set", "ingest.plane=[60, 48]"), ["multiples of 8"]),
    (("evaluate", "--real", "absent", "--synthetic", "absent", "--out", "new"), ["absent", "medgen3d synthesize"]),
    ((*EVALUATE, "--gate", "absent.yaml"), ["cannot read the gates absent.yaml"]),
    ((*EVALUATE, "--gate", "mine.txt"), ["mine.txt holds no list of gates"]),
    (("usefulness", "--data", "absent", "--out", "new"), ["absent", "medgen3d ingest"]),
    (("demo", "--out", "."), ["holds no demo", "--out"]),
    (("demo", "--set", "refiner.crp=3"), ["did you mean 'refiner.crop'?"]),
    (("synthesize", "--pipeline", "a b", "--count", "1", "--out", "new"), ["'a b'"]),
    (("synthesize", "--pipeline", "builtin/elbow", "--count", "1", "--out", "new"), ["no pipeline 'elbow' is built"]),
    (("pipelines", "elbow"), ["no pipeline 'elbow' is built in"]),
    (("pipeline", "show", "hippocampus@"), ["NAME@alias", "'hippocampus@'"]),
    (("pipeline", "promote", "a.b", "--force"), ["'a.b'"]),
    (("pipeline", "promote", "brain", "--report", "absent"), ["absent/report.json", "medgen3d evaluate"]),
    (("pipeline", "list", "--set", "storage.tracking_uri=ftp://host"), ["http://", "'ftp'"]),
]


@pytest.mark.parametrize(("arguments", "parts"), BAD_INPUT, ids=[" ".join(each) for each, _ in BAD_INPUT])
def test_bad_input_exits_with_2_and_one_sentence(
    arguments: tuple[str, ...], parts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "mine.txt").write_text("so that the folder is not empty")
    monkeypatch.chdir(tmp_path)
    line = sentence(run(*arguments))
    for part in parts:
        assert part in line
    assert not list(tmp_path.glob("new*"))


def test_a_refusal_in_a_real_process_shows_no_traceback(tmp_path: Path):
    command = [sys.executable, "-m", "medgen3d", "train", "refiner", "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert str(tmp_path / "dataset.yaml") in line


@pytest.mark.parametrize("arguments", [("train", "refiner"), ("trian",), ("evaluate", "--rael", "x")], ids=" ".join)
def test_misspelt_or_missing_words_exit_with_2(arguments: tuple[str, ...]):
    assert run(*arguments).exit_code == 2


def test_ctrl_c_exits_with_130_and_one_sentence(monkeypatch: pytest.MonkeyPatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("medgen3d.config.load.preset_names", interrupt)
    result = run("config", "presets")
    assert result.exit_code == 130
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("train", "refiner", "--data", "x"), "the same command with --resume goes on from the last one"),
        (("evaluate", "--real", "x", "--synthetic", "x", "--out", "x"), "no new report was written"),
        (("ingest", "x", "--out", "x"), "the same command goes on with what is finished"),
        (("synthesize", "--pipeline", "x", "--count", "1", "--out", "x"), "the same command goes on"),
    ],
    ids=lambda value: value[0],
)
def test_ctrl_c_says_what_to_do_next(words: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("medgen3d.config.load.load_config", interrupt)
    result = run(*words)
    assert result.exit_code == 130
    assert sentence in result.stderr


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch):
    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("medgen3d.config.load.preset_names", broken)
    assert isinstance(run("config", "presets").exception, ZeroDivisionError)
