"""A prepared set cut out of another: some of its training cases and nothing else, for a generator that may see no more.

Subsets of one seed are nested: the training cases have one order, and the first 5 of it are among the first 10.
"""

from collections.abc import Sequence
from pathlib import Path

from medgen3d.artifacts.intensity import Intensity
from medgen3d.artifacts.prepared_set import (
    DatasetInfo,
    PreparedSet,
    holds_case,
    write_info,
    write_licence,
    write_prepared_case,
)
from medgen3d.core.errors import DataError
from medgen3d.core.seeds import stream_seed


def nested_order(info: DatasetInfo, seed: int) -> list[str]:
    """The training cases by SHA-256 of (seed, case id); a subset of n cases is the first n."""
    return sorted(info.case_ids("train"), key=lambda case_id: (stream_seed(seed, "subset", case_id), case_id))


def write_subset(source: PreparedSet, root: Path, train_case_ids: Sequence[str]) -> PreparedSet:
    """Write a prepared set that holds these training cases and no other, of no split.

    What belongs to the training grid (spacing, plane, labels, intensity rule) stays as it was; what was measured on
    the training cases (`inverse`, and with the cases their shapes) is that of the chosen ones. Cases that are there
    already are kept; a finished subset is opened as it is.

    Args:
        source: Where the cases come from.
        root: Folder of the subset, new or of the same subset.
        train_case_ids: Training cases of the source, in any order.

    Raises:
        ArtifactError: The source lacks a case, or is damaged.
        DataError: A case is not of the training split, or the folder holds something else.
    """
    info = _info_of(source, train_case_ids)
    if (root / "dataset.yaml").exists():
        found = PreparedSet(root)
        if found.info != info:
            wanted = f"the {len(info.cases)} training cases of {source.root}"
            raise DataError(f"{root} holds another prepared set than {wanted}. Choose a new folder.")
    elif root.exists() and any(path.name != "cases" for path in root.iterdir()):
        raise DataError(f"{root} holds other files and no prepared set. Choose a new folder.")
    for number, case_id in enumerate(info.case_ids()):
        if not holds_case(root, number, case_id):
            write_prepared_case(root, number, source.read(case_id))
    write_licence(root, source.licence or "")
    write_info(root, info)
    return PreparedSet(root)


def _info_of(source: PreparedSet, train_case_ids: Sequence[str]) -> DatasetInfo:
    """The table of contents of the subset."""
    known = set(source.info.case_ids("train"))
    strangers = [case_id for case_id in train_case_ids if case_id not in known]
    if strangers or not train_case_ids:
        found = f"the case {strangers[0]}" if strangers else "no case"
        raise DataError(f"a subset of {source.root} is to hold {found}; expected training cases of its dataset.yaml.")
    chosen = [entry for entry in source.info.cases if entry.case_id in set(train_case_ids)]
    maps = [source.read(entry.case_id).intensity for entry in chosen]
    return source.info.model_copy(
        update={
            "inverse": Intensity.median_of(maps),
            "cases": chosen,
            "cropped": [case_id for case_id in source.info.cropped if case_id in set(train_case_ids)],
            "skipped": {},
            "notes": {},
            "cut_from": source.digest,
        }
    )
