import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medgen3d import cli


def run(*arguments: str):
    return CliRunner().invoke(cli.app, arguments)


def sentence(result) -> str:
    """The one line on stderr of a command that refuses its input."""
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


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
    ((*EVALUATE, "--gate", "absent.yaml"), ["cannot read the goals absent.yaml"]),
    ((*EVALUATE, "--gate", "mine.txt"), ["mine.txt holds no list of goals"]),
    (("usefulness", "--data", "absent", "--out", "new"), ["absent", "medgen3d ingest"]),
    (("demo", "--out", "."), ["holds no demo", "--out"]),
    (("demo", "--set", "refiner.crp=3"), ["did you mean 'refiner.crop'?"]),
    (("synthesize", "--pipeline", "a b", "--count", "1", "--out", "new"), ["'a b'"]),
    (("synthesize", "--count", "1", "--out", "new"), ["--pipeline", "--out"]),
    (
        ("synthesize", "--pipeline", "builtin/hippocampus", "--count", "1", "--out", "new", "--format", "tiff"),
        ["nifti, parquet, dicom", "'tiff'"],
    ),
    (("synthesize", "status", "absent"), ["absent/status.json", "no such file", "medgen3d synthesize"]),
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
        (("train", "refiner", "--data", "x"), "the same command goes on from the last one"),
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
