"""Provenance: which code, data, configuration and seed made an artifact."""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

import medgen3d

LIBRARIES = ("torch", "monai", "ray")
DRAWING_VERSION = 3
"""Raised whenever the same bundles, options and seed draw something else, so that no set is drawn in two ways."""


class Provenance(BaseModel):
    """Where an artifact comes from.

    code_version: Version of medgen3d; in a git checkout also the commit, with `-dirty` for uncommitted changes.
    created: ISO 8601, UTC.
    dataset_digest: `PreparedSet.digest` of the data that the artifact was made from.
    config_hash: `config_hash` of the whole experiment's configuration.
    parent_run: The tracking run that made the artifact, under which the registry files it; None without tracking.
    versions: Of the libraries that decide the numbers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = 1
    code_version: str = Field(default_factory=lambda: code_version())
    created: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    dataset_name: str
    dataset_digest: str
    config_hash: str
    seed: int
    parent_run: str | None = None
    versions: dict[str, str] = Field(default_factory=lambda: library_versions())


def config_hash(config: Mapping[str, object]) -> str:
    """SHA-256 of a configuration as canonical JSON: key order and tuples against lists make no difference.

    Raises:
        TypeError: A value is not JSON; dump the configuration in JSON mode first.
        ValueError: A number is NaN or infinite, which JSON cannot say.
    """
    canonical = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def drawing_hash(stage_configs: Mapping[str, object]) -> str:
    """SHA-256 of how stages draw: their configurations, sampling options as they are used, and DRAWING_VERSION."""
    return config_hash({"drawing": DRAWING_VERSION, "stages": stage_configs})


def code_version() -> str:
    """`0.1.0` of an installed medgen3d, such as `0.1.0+1a2b3c4d5e6f-dirty` of one that runs from its git checkout."""
    checkout = Path(__file__).parents[3]
    if not (checkout / ".git").exists():
        return medgen3d.__version__
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # no git here, or a checkout that belongs to somebody else
        return medgen3d.__version__
    return f"{medgen3d.__version__}+{commit}"


def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that decide the numbers, without importing them."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
