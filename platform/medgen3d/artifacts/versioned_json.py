"""JSON files with a schema: a pydantic model whose `schema_version` is the one that this code writes and reads."""

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from medgen3d.core.errors import ArtifactError

Model = TypeVar("Model", bound=BaseModel)


def write_versioned(path: Path, content: BaseModel) -> None:
    """Write a model as readable JSON; whole or not at all."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(content.model_dump_json(indent=2, by_alias=True) + "\n", encoding="utf-8")
    unfinished.replace(path)


def read_versioned(path: Path, kind: type[Model], remedy: str) -> Model:
    """Read a file that `write_versioned` wrote.

    Args:
        path: The file.
        kind: Its model; the default of `schema_version` is the only version that is read.
        remedy: The sentence that tells a user what to do when the file cannot be read.

    Raises:
        ArtifactError: The file is missing or damaged, of another version, or a field is unknown, missing or wrong.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise ArtifactError(str(path), found, "a readable JSON file", remedy) from error
    known = kind.model_fields["schema_version"].default
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != known:
        raise ArtifactError(str(path), f"schema version {version}", f"version {known}", remedy)
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        found = f"{field}: {first['msg']}" if field else first["msg"]
        raise ArtifactError(str(path), found, f"a valid {path.name}", remedy) from error
