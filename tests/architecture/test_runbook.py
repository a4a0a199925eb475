"""The commands of deploy/README.md exist and take the options that it gives them. (Running them needs a cluster.)"""

import re
import shlex
from pathlib import Path

import pytest
from ray.scripts.scripts import cli as ray_command

from medgen3d.cli import app

ROOT = Path(__file__).parents[2]
PROGRAMS = {"medgen3d": app, "ray": ray_command}


def commands() -> list[list[str]]:
    """The lines of the shell blocks that begin with one of the programs, as words."""
    text = (ROOT / "deploy/README.md").read_text()
    shell = "".join(re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)).replace("\\\n", " ")
    shell = re.sub(r'^submit="(.*) --"$', r"\1", shell, flags=re.MULTILINE).replace("$submit ", "")
    found = [shlex.split(line.split(" > ")[0], comments=True) for line in shell.splitlines()]
    return [words for words in found if words and words[0] in PROGRAMS]


def exit_code(words: list[str]) -> int | str | None:
    """How a command ends that is asked for help after all its options; an unknown one ends it first."""
    with pytest.raises(SystemExit) as end:
        PROGRAMS[words[0]]([*words[1:], "--help"])
    return end.value.code


def test_the_runbook_names_both_programs() -> None:
    assert {words[0] for words in commands()} == set(PROGRAMS)


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_of_the_runbook_exists_with_its_options(words: list[str]) -> None:
    assert exit_code(words) == 0


@pytest.mark.parametrize("line", ["medgen3d evaluate --rael x", "medgen3d pipelin list", "ray up --minworkers 3"])
def test_a_misspelt_command_would_be_noticed(line: str) -> None:
    assert exit_code(line.split()) == 2
