"""Versions of registered models: folders whose file hashes are kept as tags and compared whenever they are fetched."""

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion

from medgen3d.core.errors import ArtifactError, RegistryError
from medgen3d.core.hashing import sha256_of
from medgen3d.registry.tracking import Tracking, existing_is_fine, explained

LATEST = "latest"
"""Means the newest version. MLflow reserves the word, so it is never an alias."""
MODEL_ID_TAG = "model_id"
_HASH_TAG = "sha256/"
_NAME = re.compile(r"[A-Za-z0-9_-]+")  # what ingest allows


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """A version of a registered model.

    run_id: The run that made it.
    location: URI of its folder.
    """

    model: str
    number: int
    aliases: tuple[str, ...]
    created: datetime
    run_id: str
    location: str
    tags: dict[str, str]

    def __str__(self) -> str:
        return f"{self.model} version {self.number}"

    @property
    def sha256(self) -> dict[str, str]:
        """The hash of each of its files, by file name."""
        return {tag.removeprefix(_HASH_TAG): value for tag, value in self.tags.items() if tag.startswith(_HASH_TAG)}


def check_name(name: str) -> str:
    """Return `name`, which becomes the part before the dot of registered models.

    Raises:
        RegistryError: It could not be told from the rest of `NAME.stage` or `NAME@alias`.
    """
    if not _NAME.fullmatch(name):
        raise RegistryError(f"a data set's name holds letters, digits, _ and - only, got {name!r}")
    return name


def add_version(
    tracking: Tracking, model: str, folder: Path, run_id: str, tags: Mapping[str, str], decisive: tuple[str, ...]
) -> Version:
    """Upload a folder of files as the next version of a model, which is created when it is new.

    A repeated call returns the version that the first one made.

    Args:
        tracking: Where.
        model: Registered model, such as `hippocampus.refiner`.
        folder: Its files become the version; subfolders are not allowed.
        run_id: The run that made them.
        tags: Free facts; the hash of each file is added.
        decisive: The files that tell a repetition: when they are equal and the run is the same, so is the version.

    Raises:
        RegistryError: MLflow refused, or did not answer.
    """
    hashes = {f"{_HASH_TAG}{path.name}": sha256_of(path) for path in sorted(folder.iterdir())}
    with explained(tracking.uri):
        client = tracking.client()
        with existing_is_fine():
            client.create_registered_model(model)
        for known in _versions(client, model):
            if known.run_id == run_id and all(known.sha256[name] == hashes[_HASH_TAG + name] for name in decisive):
                return known
        experiment_id = client.get_run(run_id).info.experiment_id
        kind = model.rpartition(".")[2]  # MLflow allows no dots in the name of a logged model
        logged = client.create_logged_model(experiment_id, kind, run_id, {**tags, **hashes}, model_type="medgen3d")
        client.log_model_artifacts(logged.model_id, str(folder))
        client.finalize_logged_model(logged.model_id, "READY")
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        # The folder's own URI is the source: MLflow would look up `models:/ID` in its process-wide registry, not ours.
        made = client.create_model_version(
            model,
            logged.artifact_location,
            run_id,
            {**tags, **hashes, MODEL_ID_TAG: logged.model_id},
            await_creation_for=0,
            model_id=logged.model_id,
        )
        return _version(made, aliases={})


def find_version(tracking: Tracking, model: str, which: str) -> Version:
    """A version by its number, by an alias, or the newest by `latest`.

    Raises:
        RegistryError: There is no such model, version or alias; the sentence lists what exists.
    """
    versions = list_versions(tracking, model)
    if not versions:
        known = ", ".join(list_models(tracking)) or "nothing yet"
        raise RegistryError(f"the registry at {tracking.uri} has no {model}; it has {known}")
    if which == LATEST:
        return versions[-1]
    for version in versions:
        if which == str(version.number) or which in version.aliases:
            return version
    aliases = [f"{alias} ({version.number})" for version in versions for alias in version.aliases]
    raise RegistryError(
        f"{model} has no version or alias {which!r}; it has the versions "
        f"{', '.join(str(version.number) for version in versions)} and the aliases {', '.join([LATEST, *aliases])}"
    )


def list_models(tracking: Tracking, suffix: str = "") -> list[str]:
    """The names of the registered models that end with `suffix`, in order of the alphabet."""
    with explained(tracking.uri):
        search = tracking.client().search_registered_models
        return sorted(model.name for model in _pages(search, f"name LIKE '%{suffix}'"))


def list_versions(tracking: Tracking, model: str) -> list[Version]:
    """All versions of a model, oldest first; none if there is no such model."""
    with explained(tracking.uri):
        return _versions(tracking.client(), model)


def set_alias(tracking: Tracking, version: Version, alias: str) -> None:
    """Let an alias mean this version, and no longer the one that it meant."""
    with explained(tracking.uri):
        tracking.client().set_registered_model_alias(version.model, alias, str(version.number))


def set_tags(tracking: Tracking, version: Version, tags: Mapping[str, str]) -> None:
    """Add free facts to a version, or replace them."""
    with explained(tracking.uri):
        for key, value in tags.items():
            tracking.client().set_model_version_tag(version.model, str(version.number), key, value)


def fetch(tracking: Tracking, version: Version) -> Path:
    """The version's folder on this machine: in place when it lies on a shared disk, downloaded once otherwise.

    Raises:
        ArtifactError: A file is missing or is not the one that was registered.
        RegistryError: MLflow did not answer.
    """
    place = urlsplit(version.location)
    folder = Path(url2pathname(place.path)) if place.scheme in ("", "file") else _download(tracking, version)
    _verify(folder, version)
    return folder


def _download(tracking: Tracking, version: Version) -> Path:
    # Named by content too: the same number means something else once a server's database was made anew.
    content = hashlib.sha256(json.dumps(version.sha256, sort_keys=True).encode()).hexdigest()
    target = tracking.artifact_root / "downloads" / f"{version.model}-{version.number}-{content[:12]}"
    if target.exists():
        return target
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    unfinished.mkdir(parents=True)
    try:
        with explained(tracking.uri):
            downloaded = download_artifacts(version.location, dst_path=str(unfinished), tracking_uri=tracking.uri)
        _verify(Path(downloaded), version)
        with suppress(OSError):  # another process was faster, with the same files
            Path(downloaded).rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def _verify(folder: Path, version: Version) -> None:
    for name, expected in version.sha256.items():
        path = folder / name
        found = sha256_of(path) if path.is_file() else None
        if found != expected:
            shown = f"SHA-256 {found[:12]}..." if found else "no such file"
            remedy = f"It belongs to {version}: restore it, or delete {folder} if that is a downloaded copy."
            raise ArtifactError(str(path), shown, f"SHA-256 {expected[:12]}...", remedy)


def _versions(client: MlflowClient, model: str) -> list[Version]:
    registered = client.search_registered_models(f"name = '{model}'")
    if not registered:
        return []
    found = _pages(client.search_model_versions, f"name = '{model}'")
    return sorted((_version(item, registered[0].aliases) for item in found), key=lambda version: version.number)


def _version(item: ModelVersion, aliases: Mapping[str, str | int]) -> Version:
    number = int(item.version)  # text over HTTP, a number on SQLite
    return Version(
        model=item.name,
        number=number,
        aliases=tuple(sorted(alias for alias, meant in aliases.items() if int(meant) == number)),
        created=datetime.fromtimestamp(item.creation_timestamp / 1000, UTC),
        run_id=item.run_id,
        location=item.source,
        tags=dict(item.tags),
    )


def _pages(search: Callable[..., Any], filter_string: str) -> Iterator[Any]:
    token = None
    while token != "":
        page = search(filter_string, page_token=token)
        yield from page
        token = page.token or ""  # the last page has None on SQLite and "" over HTTP
