"""Networks that describe images by features: the judge's encoder, and pretrained ones from a user's weights file."""

import functools
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medgen3d.core.errors import ArtifactError, DataError
from medgen3d.core.hashing import sha256_of

if TYPE_CHECKING:
    from torch import Tensor

    from medgen3d.evaluation.judge import Judge
    from medgen3d_stages.monai_parts import ResNetFeatures

VIEWS = ("axial", "coronal", "sagittal")
"""Named by the array axis that their slices run along: D, H, W."""
KINDS = (*(f"medicalnet-resnet{depth}" for depth in (10, 18, 34, 50)), "radimagenet-resnet50")

_MAX_BYTES = 2**30  # the largest published file of these kinds has 255 MB
_SLICES_PER_VIEW = 16
_SLICE_SIDE = 224  # what RadImageNet's networks were trained on
# RadImageNet's authors publish the children of torchvision's network, numbered in the order in which they run.
_RADIMAGENET_NAMES = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_REMEDY = "Give the file as its authors publish it, with the kind that it was published as."

ViewFeatures = dict[str, NDArray[np.float32]]
"""{view: [n, C]}, one vector per place along the view's axis."""


class Extractor(Protocol):
    """Describes an image, slice by slice, in three views.

    weights_sha256: Of the weights' file.
    """

    @property
    def name(self) -> str: ...

    @property
    def weights_sha256(self) -> str: ...

    def features(self, image: NDArray[np.float32]) -> ViewFeatures:
        """The features of an image [D, h, w] in [-1, 1]."""
        ...


@dataclass(frozen=True, slots=True)
class JudgeExtractor:
    """The encoder of the judge."""

    judge: "Judge"

    @property
    def name(self) -> str:
        return self.judge.name

    @property
    def weights_sha256(self) -> str:
        return self.judge.weights_sha256

    def features(self, image: NDArray[np.float32]) -> ViewFeatures:
        return view_features(self.judge.features(image))


@dataclass(frozen=True, slots=True)
class MedicalNetExtractor:
    """A 3D ResNet of MedicalNet (Chen et al. 2019, arXiv:1904.00625); volumes are standardised, as in its training."""

    name: str
    weights_sha256: str
    network: "ResNetFeatures"

    def features(self, image: NDArray[np.float32]) -> ViewFeatures:
        import torch

        standardised = (image - image.mean()) / max(float(image.std()), 1e-6)
        with torch.no_grad():
            found = self.network(torch.from_numpy(standardised)[None, None])[-1]
        return view_features(found[0].numpy())


@dataclass(frozen=True, slots=True)
class RadImageNetExtractor:
    """The 2D ResNet-50 of RadImageNet (Mei et al. 2022, doi:10.1148/ryai.210315), of up to 16 slices per view.

    It was trained on grey slices in [-1, 1] of 224 x 224 pixels, repeated as three channels.
    """

    name: str
    weights_sha256: str
    network: "ResNetFeatures"

    def features(self, image: NDArray[np.float32]) -> ViewFeatures:
        return {view: self._of_slices(np.moveaxis(image, axis, 0)) for axis, view in enumerate(VIEWS)}

    def _of_slices(self, slices: NDArray[np.float32]) -> NDArray[np.float32]:
        import torch
        from torch.nn.functional import interpolate

        places = np.linspace(0, len(slices) - 1, min(_SLICES_PER_VIEW, len(slices))).round().astype(int)
        chosen = torch.from_numpy(np.ascontiguousarray(slices[places]))[:, None]
        resized = interpolate(chosen, (_SLICE_SIDE, _SLICE_SIDE), mode="bilinear", antialias=True)
        with torch.no_grad():
            found = [self.network(each.expand(1, 3, -1, -1))[-1] for each in resized]
        return torch.cat(found).mean(dim=(2, 3)).numpy()


def view_features(feature_map: NDArray[np.floating]) -> ViewFeatures:
    """A feature map [C, d, h', w'] -> per view one vector per place along its axis, the mean over the other two."""
    of_view = {}
    for axis, view in enumerate(VIEWS, start=1):
        in_plane = tuple({1, 2, 3} - {axis})
        of_view[view] = feature_map.mean(axis=in_plane, dtype=np.float64).T.astype(np.float32)
    return of_view


def pretrained_extractor(kind: str, path: Path) -> MedicalNetExtractor | RadImageNetExtractor:
    """A published network with the weights of a user's file.

    Args:
        kind: One of KINDS.
        path: A state dict, also one below the key "state_dict", as torch's file without other objects than tensors,
            or as safetensors. MedicalNet: named as in its networks, with or without "module." in front.
            RadImageNet: "backbone.0.weight" and so on, or torchvision's own names; a classifier "fc" is left out.

    Raises:
        DataError: The kind is unknown.
        ArtifactError: The file is missing, too large or unreadable, or its tensors are not those of the network.
    """
    if kind not in KINDS:
        raise DataError(f"{kind!r} is no known feature extractor; known are {', '.join(KINDS)}.")
    path = Path(path)
    tensors = {name.removeprefix("module."): tensor for name, tensor in _read(path).items()}
    family, model = kind.split("-")
    network = _medicalnet(model) if family == "medicalnet" else _radimagenet(model)
    _fill(network, tensors if family == "medicalnet" else _torchvision_names(tensors), kind, path)
    extractor = MedicalNetExtractor if family == "medicalnet" else RadImageNetExtractor
    return extractor(kind, sha256_of(path), network)


def _medicalnet(model: str) -> "ResNetFeatures":
    """MedicalNet's networks keep the resolution of their second stage, with dilated kernels; MONAI's halve it on."""
    network = _resnet(model, spatial_dims=3, in_channels=1)
    _dilate(network.layer3, 2)
    _dilate(network.layer4, 4)
    return network


def _radimagenet(model: str) -> "ResNetFeatures":
    return _resnet(model, spatial_dims=2, in_channels=3)


def _resnet(model: str, spatial_dims: int, in_channels: int) -> "ResNetFeatures":
    import torch

    from medgen3d_stages.monai_parts import ResNetFeatures

    with torch.random.fork_rng(devices=[]):  # fresh weights are overwritten: they must not move the caller's stream
        network = ResNetFeatures(model, pretrained=False, spatial_dims=spatial_dims, in_channels=in_channels)
    return network.eval().requires_grad_(False)


def _dilate(stage: Any, dilation: int) -> None:
    """Stride 1 everywhere in a stage of the network, and the dilation in its 3 x 3 x 3 kernels, in place."""
    from torch.nn import Conv3d

    for module in stage.modules():
        if isinstance(module, Conv3d):
            module.stride = (1, 1, 1)
            if module.kernel_size == (3, 3, 3):
                module.dilation = module.padding = (dilation, dilation, dilation)
    shortcut = stage[0].downsample
    if isinstance(shortcut, functools.partial):  # type A: no convolution, but every so many voxels
        shortcut.keywords["stride"] = 1


def _torchvision_names(tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """Numbered layers -> names; the classifier is dropped."""
    named = {}
    for name, tensor in tensors.items():
        number, _, rest = name.removeprefix("backbone.").partition(".")
        if name.startswith("backbone."):
            name = f"{_RADIMAGENET_NAMES.get(number, number)}.{rest}"
        if not name.startswith("fc."):
            named[name] = tensor
    return named


def _read(path: Path) -> "dict[str, Tensor]":
    """{name: tensor}, without running anything that the file may hold."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ArtifactError(str(path), "no such file", "a network's weights", _REMEDY)
    if path.stat().st_size > _MAX_BYTES:
        raise ArtifactError(str(path), f"{path.stat().st_size} bytes", f"at most {_MAX_BYTES} bytes", _REMEDY)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError, SafetensorError) as error:
        reason = f"an unreadable file ({type(error).__name__})"
        raise ArtifactError(str(path), reason, "a state dict of tensors, or safetensors", _REMEDY) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in content.values()):
        raise ArtifactError(str(path), "other things than tensors", "a state dict of tensors", _REMEDY)
    return content


def _fill(network: "ResNetFeatures", tensors: "dict[str, Tensor]", kind: str, path: Path) -> None:
    """Fill the network, in place, once every tensor is known to fit."""
    expected = network.state_dict()
    for name in sorted(expected.keys() ^ tensors.keys()):
        found, wanted = ("no tensor", "one") if name in expected else ("an unknown tensor", "none")
        raise ArtifactError(str(path), f"{found} {name}", f"{wanted} by that name in {kind}", _REMEDY)
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            found, wanted = (f"shape {list(shape)}" for shape in (tensor.shape, expected[name].shape))
            raise ArtifactError(str(path), f"{found} of tensor {name}", f"{wanted} in {kind}", _REMEDY)
        if not tensor.isfinite().all():
            raise ArtifactError(str(path), f"NaN or infinite numbers in tensor {name}", "finite weights", _REMEDY)
    network.load_state_dict(tensors)
