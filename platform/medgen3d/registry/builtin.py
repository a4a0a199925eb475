"""The pipelines that ship with medgen3d: folders of the package that need no MLflow."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from medgen3d.artifacts.pipeline import CARD, FILE, Pipeline, PortablePipeline, read_portable, read_portable_info
from medgen3d.core.errors import ArtifactError, RegistryError

PREFIX = "builtin/"
ROOT = Path(str(files("medgen3d") / "builtin"))
_REMEDY = "Install medgen3d again."


class CardFacts(BaseModel):
    """What stands between the first two `---` of a model card, as YAML.

    licence: Of the weights, which is that of the data they were trained on.
    summary: What the pipeline draws, in one line.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    licence: str
    summary: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltIn:
    """A pipeline that ships with medgen3d.

    card: The model card, a Markdown page, without its facts.
    num_bytes: Size of all its files.
    """

    name: str
    info: PortablePipeline
    facts: CardFacts
    card: str
    num_bytes: int


def list_builtin(root: Path = ROOT) -> list[BuiltIn]:
    """Every pipeline that is built in, in the order of the alphabet; files are listed and not compared."""
    return [describe_builtin(name, root) for name in _names(root)]


def describe_builtin(name: str, root: Path = ROOT) -> BuiltIn:
    """What is known of a pipeline that is built in.

    Raises:
        RegistryError: There is no such pipeline.
        ArtifactError: Its description or its card is missing or damaged.
    """
    folder = _folder(name, root)
    facts, card = _read_card(folder / CARD)
    num_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return BuiltIn(name=name, info=read_portable_info(folder), facts=facts, card=card, num_bytes=num_bytes)


def resolve_builtin(reference: str, root: Path = ROOT) -> Pipeline:
    """The pipeline that `builtin/NAME` means, every file being the one that was shipped.

    Raises:
        RegistryError: There is no such pipeline.
        ArtifactError: A file is missing or was changed.
    """
    folder = _folder(reference.removeprefix(PREFIX), root)
    return replace(read_portable(folder, reference), licence=_licence(folder))


def _licence(folder: Path) -> str | None:
    return _read_card(folder / CARD)[0].licence if (folder / CARD).is_file() else None


def _folder(name: str, root: Path) -> Path:
    known = list(_names(root))
    if name not in known:
        raise RegistryError(f"no pipeline {name!r} is built in; there are {', '.join(known) or 'none'}")
    return root / name


def _names(root: Path) -> Iterator[str]:
    return (path.parent.name for path in sorted(root.glob(f"*/{FILE}")))


def _read_card(path: Path) -> tuple[CardFacts, str]:
    try:
        before, facts, card = path.read_text(encoding="utf-8").split("---\n", 2)
        if before:
            raise ValueError("it does not begin with ---")
        return CardFacts.model_validate(yaml.safe_load(facts)), card.lstrip()
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(
            str(path), f"no valid model card ({reason})", "its facts between two lines ---", _REMEDY
        ) from error
