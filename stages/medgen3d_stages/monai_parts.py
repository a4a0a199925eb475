"""The parts of MONAI that medgen3d uses, imported without the packages that MONAI loads along with them.

`import monai` loads all of MONAI, and with it MLflow, matplotlib, pandas and scikit-learn where they are installed.
That is most of its time, in each of the many processes that train, draw and serve (`benchmarks/imports.py`). MONAI
treats them as optional and nothing imported here needs them, so they are hidden while MONAI is loaded; afterwards they
can be imported as always. A program that wants all of MONAI in the same process imports `monai` first.
"""

import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

OPTIONAL = (
    "IPython",
    "ignite",
    "matplotlib",
    "mlflow",
    "pandas",
    "scipy.signal",
    "scipy.stats",
    "sklearn",
    "tensorboard",
)


class _Hiding:
    """A finder that finds nothing: it ends the search for hidden packages with an error, in one thread only."""

    def __init__(self, hidden: Sequence[str]) -> None:
        self._hidden, self._thread = hidden, threading.get_ident()

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        if threading.get_ident() == self._thread and any(
            name == each or name.startswith(f"{each}.") for each in self._hidden
        ):
            raise ModuleNotFoundError(
                f"{name} is kept out of MONAI by {__name__}; import monai before it to have all of MONAI", name=name
            )


@contextmanager
def _hidden(names: Sequence[str]) -> Iterator[None]:
    finder = _Hiding(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


with _hidden(OPTIONAL):
    from monai.inferers import sliding_window_inference
    from monai.losses import DiceCELoss, PatchAdversarialLoss
    from monai.metrics import MultiScaleSSIMMetric, compute_dice, compute_hausdorff_distance, compute_surface_dice
    from monai.networks.blocks.spade_norm import SPADE
    from monai.networks.nets import DiffusionModelUNet, MultiScalePatchDiscriminator, SegResNet, SPADEDiffusionModelUNet
    from monai.networks.nets.resnet import ResNetFeatures

# MONAI 1.6 warns whoever measures surfaces of an argument that only MONAI itself passes.
warnings.filterwarnings("ignore", "monai.metrics.utils get_mask_edges", FutureWarning)

__all__ = [
    "SPADE",
    "DiceCELoss",
    "DiffusionModelUNet",
    "MultiScalePatchDiscriminator",
    "MultiScaleSSIMMetric",
    "PatchAdversarialLoss",
    "ResNetFeatures",
    "SPADEDiffusionModelUNet",
    "SegResNet",
    "compute_dice",
    "compute_hausdorff_distance",
    "compute_surface_dice",
    "sliding_window_inference",
]
