"""The README's commands, run as written and in order, in the environment that is already there."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()
COMMAND_LANGUAGES = {"console", "bash"}
OTHER_LANGUAGES = {"json", "python", "text", "yaml"}
NOT_HERE = {"make test"}  # it would run itself

BLOCK = re.compile(
    r"(?:<!--(?P<marker>(?:(?!-->).)*)-->\s*\n)?^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)
NOT_RUN = re.compile(r"\s*not run:\s*\S.*")


@dataclass(frozen=True)
class Block:
    """A code block. `marker` is the comment directly above it."""

    language: str
    body: str
    marker: str | None

    @property
    def commands(self) -> list[str]:
        lines = self.body.replace("\\\n", " ").splitlines()
        return [" ".join(line.split()) for line in lines if line.strip() and not line.startswith("#")]


def blocks(markdown: str) -> Iterator[Block]:
    for match in BLOCK.finditer(markdown):
        yield Block(match["language"], match["body"], match["marker"])


def commands(markdown: str) -> list[str]:
    return [
        command
        for block in blocks(markdown)
        if block.language in COMMAND_LANGUAGES and block.marker is None
        for command in block.commands
        if command not in NOT_HERE
    ]


def test_only_blocks_that_are_marked_with_a_reason_are_left_out():
    for block in blocks(README):
        assert block.language in COMMAND_LANGUAGES | OTHER_LANGUAGES, f"name the language of the block {block.body!r}"
        assert block.marker is None or NOT_RUN.fullmatch(block.marker), f"no reason in <!--{block.marker}-->"


def test_commands_are_found_in_order_without_comments_and_with_their_continuation_lines():
    markdown = (
        "```console\nmake demo\nmake test\n```\n\n"
        "<!-- a picture -->\n\n<!-- not run: needs a cloud -->\n```bash\nray up\n```\n"
        "text\n```bash\n# why\nmedgen3d train all \\\n  --data d\n```\n"
    )
    assert commands(markdown) == ["make demo", "medgen3d train all --data d"]
    assert NOT_RUN.fullmatch(" not run: needs a cloud ")
    assert not NOT_RUN.fullmatch(" not run: ")
    assert not NOT_RUN.fullmatch(" not run ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A checkout in which the environment is built, without anything that earlier runs have left behind."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (root / name).symlink_to(REPOSITORY / name)
    (root / ".venv").mkdir()
    for part in Path(sys.prefix).iterdir():
        if part.name != ".installed":
            (root / ".venv" / part.name).symlink_to(part)
    (root / ".venv" / ".installed").touch()  # newer than what it depends on: make installs nothing
    return root


@pytest.fixture(scope="module")
def run(folder) -> Callable[[str], str]:
    """Run a command of the README, once however often it is asked for; what it says on stdout."""
    said: dict[str, str] = {}
    # Ray and telemetry as a user has them, apart from where Ray keeps its files.
    set_by_tests = ("OMP_NUM_THREADS", "RAY_AUTH_MODE", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "RAY_USAGE_STATS_ENABLED")
    # A make inside `make test` would announce the folders that it enters and leaves.
    set_by_make = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    environment = {key: value for key, value in os.environ.items() if key not in {*set_by_tests, *set_by_make}}

    def once(command: str) -> str:
        if command not in said:
            said[command] = _run(["bash", "-euo", "pipefail", "-c", command], folder, environment)
        return said[command]

    return once


def _run(words: list[str], folder: Path, environment: dict[str, str]) -> str:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, cwd=folder, env=environment, start_new_session=True, **pipes) as process:
        try:
            stdout, stderr = process.communicate()
        except BaseException:  # the test's time is over
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0, stdout + stderr
    return stdout


@pytest.mark.timeout(900)
@pytest.mark.parametrize("command", commands(README))
def test_the_readmes_command_succeeds(command: str, run):
    run(command)


@pytest.mark.timeout(900)
def test_the_demo_ends_by_saying_where_the_pairs_and_the_report_are_and_how_to_open_mlflow(run, folder):
    *_, shown_line, pairs_line, report_line, mlflow_line = run("make demo").splitlines()
    assert Image.open(folder / shown_line.rpartition(" ")[2]).format == "PNG"
    pairs, report = (folder / line.split(maxsplit=1)[1] for line in (pairs_line, report_line))
    assert (pairs_line[:6], report_line[:7]) == ("Pairs:", "Report:")
    assert "data:image/png;base64," in report.read_text()
    cases = sorted(path.name for path in (pairs / "images").iterdir())
    assert len(cases) >= 2
    for case in cases:
        image, mask = (nib.load(pairs / part / case) for part in ("images", "labels"))
        np.testing.assert_array_equal(image.affine, mask.affine)
    program, *words = mlflow_line.removeprefix("MLflow:").split()
    assert os.access(program, os.X_OK)
    assert words[:2] == ["ui", "--backend-store-uri"]
    assert Path(words[2].removeprefix("sqlite:///")).exists()
