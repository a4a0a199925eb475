"""pyproject.toml says what may be installed, constraints.txt what is; the two must agree."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIRECT = [Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]]
PINS = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
PINNED = {canonicalize_name(pin.name): pin for pin in map(Requirement, PINS)}


def version(pin: Requirement) -> str:
    (specifier,) = pin.specifier
    assert specifier.operator == "==", f"{pin} must name one exact version"
    return specifier.version


@pytest.mark.parametrize("dependency", DIRECT, ids=str)
def test_the_pinned_version_lies_in_the_declared_range(dependency: Requirement) -> None:
    assert dependency.specifier.contains(version(PINNED[canonicalize_name(dependency.name)]))


def test_constraints_fit_any_machine() -> None:
    for pin in PINNED.values():
        assert pin.url is None, f"{pin} names a file or an address"
        assert "+" not in version(pin), f"{pin} names one build of a release"
        assert not pin.name.startswith(("nvidia", "cuda", "triton")), f"{pin} follows from the torch build"
