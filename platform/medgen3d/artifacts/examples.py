"""Cases of a prepared set as the stages take them: for training, and for asking a stage which cases it knows."""

from medgen3d.artifacts.prepared_set import PreparedSet, box_of
from medgen3d_stages.arrays import Example


def open_example(prepared: PreparedSet, case_id: str) -> Example:
    """A case of a prepared set as the stages cut from it; what they do not cut is not read.

    Raises:
        ArtifactError: There is no such case, or its file is missing or damaged.
    """
    file = prepared.open(case_id)
    box = box_of(file)
    return Example(image=file.image, mask=file.mask, box=(box.top, box.bottom, box.left, box.right))


def read_example(prepared: PreparedSet, case_id: str) -> Example:
    """A case of a prepared set as the stages see it.

    Raises:
        ArtifactError: There is no such case, or its file is missing or damaged.
    """
    case = prepared.read(case_id)
    box = (case.box.top, case.box.bottom, case.box.left, case.box.right)
    return Example(image=case.image, mask=case.mask, box=box)
