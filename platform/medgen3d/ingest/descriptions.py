"""Descriptions of data sets as JSON: `dataset.json` as the Decathlon or nnU-Net has it, and files of labels."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field, TypeAdapter, ValidationError

from medgen3d.artifacts.intensity import Modality
from medgen3d.core.errors import DataError


def _single(value: object) -> object:
    """The one channel of a data set; several would need a model of several images."""
    if isinstance(value, dict) and len(value) != 1:
        raise ValueError(f"{len(value)} image channels, but exactly one is supported: export one channel per case")
    return value


def _in_lower_case(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


Channels = Annotated[dict[str, str], BeforeValidator(_single)]


Licence = Annotated[str, Field(validation_alias=AliasChoices("licence", "license"))]


class DecathlonEntry(BaseModel):
    """A pair of files."""

    image: str
    label: str


class Decathlon(BaseModel):
    """A description as the Medical Segmentation Decathlon has it, and nnU-Net v1."""

    name: str = ""
    modality: Channels = {"0": ""}
    labels: dict[int, str]
    training: list[DecathlonEntry]
    phantom: bool = False
    licence: Licence = ""


class NnUnetEntry(BaseModel):
    """The files of a case."""

    images: Annotated[list[str], Field(min_length=1, max_length=1)]
    label: str


class NnUnet(BaseModel):
    """A description as nnU-Net v2 has it.

    labels: Each name's id, or the ids of a region.
    dataset: Where the files lie; without it, in imagesTr and labelsTr.
    """

    name: str = ""
    channel_names: Channels
    labels: dict[str, int | list[int]]
    file_ending: Annotated[Literal[".nii.gz", ".nii"], BeforeValidator(_in_lower_case)]
    dataset: dict[str, NnUnetEntry] | None = None
    phantom: bool = False
    licence: Licence = ""


def read_labels(path: Path) -> dict[int, str]:
    """A JSON file {id: name}.

    Raises:
        DataError: The file is missing or holds something else.
    """
    try:
        return TypeAdapter(dict[int, str]).validate_python(_read_json(path))
    except ValidationError as error:
        raise DataError(
            f'{path}: {_first(error)}. Expected {{"1": "liver", ...}}: a name for every label id.'
        ) from error


def read_description(path: Path) -> "Decathlon | NnUnet":
    """A `dataset.json`, of whichever kind it is.

    Raises:
        DataError: It cannot be read, or is neither.
    """
    content = _read_json(path)
    is_nnunet = isinstance(content, dict) and "channel_names" in content
    try:
        return NnUnet.model_validate(content) if is_nnunet else Decathlon.model_validate(content)
    except ValidationError as error:
        raise DataError(
            f"{path}: {_first(error)}. Expected a Medical Segmentation Decathlon or nnU-Net description."
        ) from error


def plain_labels(labels: dict[str, int | list[int]]) -> tuple[dict[int, str], list[str]]:
    """{id: name} of an nnU-Net description, and notes.

    Of regions, which are lists of ids and may overlap, the ids are the labels; a list of one id names it.
    """
    regions = {name: ids for name, ids in labels.items() if isinstance(ids, list) and len(ids) != 1}
    named = {ids[0] if isinstance(ids, list) else ids: name for name, ids in labels.items() if name not in regions}
    nameless = sorted({label_id for ids in regions.values() for label_id in ids} - named.keys())
    if not regions:
        return named, []
    note = (
        f"dataset.json declares regions ({', '.join(regions)}), which are learnt by the ids that they are made of"
        + (f"; {', '.join(map(str, nameless))} have no name of their own: give one with --labels" if nameless else "")
    )
    return named | {label_id: f"label_{label_id}" for label_id in nameless}, [note]


def modality_of(channels: dict[str, str]) -> Modality | None:
    """What the name of the one channel says, if anything."""
    (channel,) = channels.values()
    if re.fullmatch(r"ct", channel, re.IGNORECASE):
        return "CT"
    return "MR" if re.match(r"mr|t1|t2|flair|pd", channel, re.IGNORECASE) else None


def _read_json(path: Path) -> Any:
    """The content of a JSON file, which may begin with a byte-order mark."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_repeats)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}. Restore or correct the file.") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Python would keep the last of several equal keys, and a label would vanish."""
    repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if repeated:
        raise ValueError(f"the key {repeated[0]!r} occurs more than once")
    return dict(pairs)


def _first(error: ValidationError) -> str:
    """The first thing that pydantic found wrong, in a few words."""
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'content'}: {first['msg']}"
