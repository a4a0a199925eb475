"""Sources of labelled volumes: four layouts of folders, each listed as the same list of pairs.

    dataset.json + the files it names              Medical Segmentation Decathlon, or nnU-Net v1 or v2
    images/CASE.nii.gz + labels/CASE.nii.gz        folder pairs
    images/CASE/*.dcm  + labels/CASE.nii.gz        DICOM series with NIfTI masks (may be mixed with the former); a
                                                   multi-frame series may be the file images/CASE.dcm
    CASE/image.nii.gz  + CASE/mask.nii.gz          case folders; both names can be chosen, and the source itself may
                                                   be the one case folder

A source is only listed here, never read: whether the files are sound is for `verify` to say.
"""

import re
from collections import Counter
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict

from medgen3d.artifacts.dicom import SUFFIX
from medgen3d.artifacts.intensity import Modality
from medgen3d.artifacts.nifti_stream import stem
from medgen3d.core.errors import DataError
from medgen3d.ingest.descriptions import Decathlon, NnUnet, modality_of, plain_labels, read_description
from medgen3d.ingest.problems import CaseProblem

_LAYOUTS = (
    "a dataset.json (Medical Segmentation Decathlon or nnU-Net), or the folders images/ and labels/, "
    "or case folders that hold {image} and {mask} (other names: --image and --mask)"
)
_RENAME = "Give every case a name of its own."


class Pair(BaseModel):
    """An image (a NIfTI file or a folder with a DICOM series) and its mask; either may be missing on disk."""

    model_config = ConfigDict(frozen=True)

    case: str
    image: Path
    mask: Path


class Source(BaseModel):
    """A source: its pairs, and what it declares about itself.

    problems: Those that its list of cases shows.
    notes: Sentences about what is read otherwise than it is written.
    """

    root: Path
    name: str
    modality: Modality | None = None
    labels: dict[int, str] | None = None
    phantom: bool = False
    licence: str = ""
    pairs: list[Pair]
    problems: list[CaseProblem] = []
    notes: list[str] = []

    @property
    def num_cases(self) -> int:
        return len({pair.case for pair in self.pairs} | {problem.case for problem in self.problems})


def read_source(root: Path, *, image_name: str = "image.nii.gz", mask_name: str = "mask.nii.gz") -> Source:
    """List the cases of a source folder.

    Args:
        root: The folder; its layout is recognised.
        image_name: Name of the image file, or of the folder with its DICOM series, within a case folder.
        mask_name: Name of the mask file within a case folder.

    Raises:
        DataError: The folder has none of the layouts, or its `dataset.json` is not valid.
    """
    if not root.is_dir():
        raise DataError(f"{root} is no folder. Give the folder that holds the images and masks.")
    if (root / "dataset.json").is_file():
        source = _from_dataset_json(root)
    elif (root / "images").is_dir() and (root / "labels").is_dir():
        source = _pairs_by_stem(root, root / "images", root / "labels")
    else:
        source = _case_folders(root, image_name, mask_name)
    if not source.pairs and not source.problems:
        layouts = _LAYOUTS.format(image=image_name, mask=mask_name)
        raise DataError(f"{root} holds no labelled volumes. Expected {layouts}.")
    return _without_duplicates(source)


def _from_dataset_json(root: Path) -> Source:
    description = read_description(root / "dataset.json")
    if isinstance(description, NnUnet):
        return _nnunet(root, description)
    return _decathlon(root, description)


def _decathlon(root: Path, content: Decathlon) -> Source:
    names = [(stem(PurePosixPath(entry.image).name), entry.image, entry.label) for entry in content.training]
    pairs, problems = _named_pairs(root, names)
    pairs = [pair.model_copy(update={"image": _only_channel(pair.image)}) for pair in pairs]
    return Source(
        root=root,
        name=content.name or root.resolve().name,
        modality=modality_of(content.modality),
        labels=content.labels,
        phantom=content.phantom,
        licence=content.licence,
        pairs=pairs,
        problems=problems,
    )


def _nnunet(root: Path, content: NnUnet) -> Source:
    if content.dataset is None:
        source = _pairs_by_stem(root, root / "imagesTr", root / "labelsTr", channel="_0000")
    else:
        names = [(case, entry.images[0], entry.label) for case, entry in content.dataset.items()]
        pairs, problems = _named_pairs(root, names)
        source = Source(root=root, name=root.resolve().name, pairs=pairs, problems=problems)
    labels, notes = plain_labels(content.labels)
    return source.model_copy(
        update={
            "name": content.name or source.name,
            "modality": modality_of(content.channel_names),
            "labels": labels,
            "notes": notes,
            "phantom": content.phantom,
            "licence": content.licence,
        }
    )


def _only_channel(image: Path) -> Path:
    """The file itself, or where there is none, the one that nnU-Net v1 means by it: with the channel in its name."""
    channel = image.with_name(f"{stem(image.name)}_0000{image.name[len(stem(image.name)) :]}")
    return channel if channel.exists() and not image.exists() else image


def _named_pairs(root: Path, names: list[tuple[str, str, str]]) -> tuple[list[Pair], list[CaseProblem]]:
    """(case, image, label) as a dataset.json names them -> pairs, and the problems of those that lead elsewhere."""
    pairs, problems = [], []
    for case, image, label in names:
        unsafe = [name for name in (image, label) if not _is_inside(name)]
        if unsafe:
            problems.append(
                CaseProblem(
                    case=case,
                    kind="unsafe path",
                    found=f"{unsafe[0]!r} in dataset.json",
                    expected="a path below the folder of dataset.json, without '..'",
                    remedy="Move the file there, and correct dataset.json.",
                )
            )
        else:
            pairs.append(Pair(case=case, image=root / image, mask=root / label))
    return pairs, problems


def _pairs_by_stem(root: Path, images: Path, masks: Path, channel: str = "") -> Source:
    """Pair two folders by file stem; `channel` ends the stems of the images only.

    A stem that occurs twice gives several pairs of one name, and a missing partner is a path that does not exist.
    """
    image_of, mask_of = _by_stem(images, channel), _by_stem(masks)
    pairs = [
        Pair(case=case, image=image, mask=mask)
        for case in sorted(image_of.keys() | mask_of.keys())
        for image in image_of.get(case, [images / f"{case}{channel}.nii.gz"])
        for mask in mask_of.get(case, [masks / f"{case}.nii.gz"])
    ]
    return Source(root=root, name=root.resolve().name, pairs=pairs)


def _by_stem(folder: Path, channel: str = "") -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in _visible(folder):
        name = path.name[: -len(SUFFIX)] if path.name.lower().endswith(SUFFIX) else stem(path.name)
        found.setdefault(name.removesuffix(channel), []).append(path)
    return found


def _case_folders(root: Path, image_name: str, mask_name: str) -> Source:
    folders = [root, *(path for path in _visible(root) if path.is_dir())]
    pairs = [
        Pair(case=folder.resolve().name, image=folder / image_name, mask=folder / mask_name)
        for folder in folders
        if (folder / image_name).exists() or (folder / mask_name).exists()
    ]
    return Source(root=root, name=root.resolve().name, pairs=pairs)


def _without_duplicates(source: Source) -> Source:
    """A case name that occurs twice is ambiguous: none of its pairs is kept."""
    counts = Counter(pair.case for pair in source.pairs)
    problems = [
        CaseProblem(case=case, kind="duplicate case", found=f"{count} pairs of files", expected="one", remedy=_RENAME)
        for case, count in counts.items()
        if count > 1
    ]
    pairs = [pair for pair in source.pairs if counts[pair.case] == 1]
    return source.model_copy(update={"pairs": pairs, "problems": source.problems + problems})


def _visible(folder: Path) -> list[Path]:
    """The entries of a folder without hidden files such as `.DS_Store`; none where there is no folder."""
    return sorted(path for path in folder.glob("*") if not path.name.startswith("."))


def _is_inside(name: str) -> bool:
    """Whether a path written in a JSON file stays below the folder of that file."""
    parts = re.split(r"[/\\]", name)
    return bool(name) and ".." not in parts and not PurePosixPath(name).is_absolute() and ":" not in parts[0]
