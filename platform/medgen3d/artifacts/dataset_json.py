"""One `dataset.json` that Medical Segmentation Decathlon readers and nnU-Net v2 both understand.

nnU-Net v2 needs `channel_names`, `labels` {name: id}, `numTraining` and `file_ending`, and finds the files through
`dataset`. Decathlon readers, MONAI's among them, take the pairs from `training` and the channel from `modality`. The
two disagree about `labels` alone; docs/decisions says why it is nnU-Net's.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal


def dataset_json(
    *, name: str, description: str, modality: Literal["CT", "MR"], labels: Mapping[int, str], case_ids: Sequence[str]
) -> dict[str, object]:
    """Describe a folder with `images/CASE.nii.gz` and `labels/CASE.nii.gz`, one channel per case.

    Args:
        name: The data set's name.
        description: What it is, in a sentence or two.
        modality: nnU-Net normalises "CT" over the whole set and anything else per volume.
        labels: Label id -> name. nnU-Net wants the ids to be 0, 1, 2, ...; gaps are kept nevertheless, since the
            masks have them.
        case_ids: File names without their ending.
    """
    files = {case_id: (f"images/{case_id}.nii.gz", f"labels/{case_id}.nii.gz") for case_id in case_ids}
    channel = {"0": "CT" if modality == "CT" else "MRI"}
    return {
        "name": name,
        "description": description,
        "tensorImageSize": "3D",
        "modality": channel,
        "channel_names": channel,
        "labels": ids_by_name(labels),
        "numTraining": len(files),
        "numTest": 0,
        "file_ending": ".nii.gz",
        "training": [{"image": f"./{image}", "label": f"./{label}"} for image, label in files.values()],
        "test": [],
        "dataset": {case_id: {"images": [image], "label": label} for case_id, (image, label) in files.items()},
    }


def ids_by_name(labels: Mapping[int, str]) -> dict[str, int]:
    """{name: id}. nnU-Net insists on the name `background`; a name that occurs twice gets its id behind it."""
    named = dict(labels) | {0: "background"}
    counts = Counter(named.values())
    return {
        name if counts[name] == 1 or label_id == 0 else f"{name} ({label_id})": label_id
        for label_id, name in sorted(named.items())
    }
