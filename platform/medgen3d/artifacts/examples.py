"""Cases of a prepared set as the stages take them: for training, and for asking a stage which cases it knows."""

from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d_stages.arrays import Example


def read_example(prepared: PreparedSet, case_id: str) -> Example:
    """A case of a prepared set as the stages see it.

    Raises:
        ArtifactError: There is no such case, or its part is missing or damaged.
    """
    case = prepared.read(case_id)
    box = (case.box.top, case.box.bottom, case.box.left, case.box.right)
    return Example(image=case.image, mask=case.mask, box=box)
