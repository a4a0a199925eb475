"""The weights of a bundle: a safetensors file whose tensors are named `network/parameter`."""

from pathlib import Path
from typing import TYPE_CHECKING

from medgen3d.core.errors import ArtifactError, DataError

if TYPE_CHECKING:  # torch stays out of what the command line imports
    from torch import Tensor

    from medgen3d_stages.arrays import Networks

WEIGHTS = "weights.safetensors"
REMEDY = "Restore the bundle, fetch it again, or train the stage again."


def read_weights(root: Path) -> "dict[str, Tensor]":
    """The tensors of a bundle by name, in the type in which they are stored.

    Raises:
        ArtifactError: The weights file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(root) / WEIGHTS
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def named_weights(networks: "Networks") -> "dict[str, Tensor]":
    """The state of networks as a bundle names it: `network/parameter`, buffers included, without copying."""
    return {f"{name}/{key}": value for name, network in networks.items() for key, value in network.state_dict().items()}


def save_weights(path: Path, weights: "dict[str, Tensor]") -> None:
    """Write tensors by name.

    Raises:
        DataError: One is NaN or infinite: the training diverged.
    """
    from safetensors.torch import save_file

    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            raise DataError(
                f"{name} holds NaN or infinite weights: the training diverged. Lower the learning rate and train again."
            )
    # clone: safetensors refuses tensors that share memory, such as views of one flat buffer
    save_file({name: tensor.detach().cpu().clone().contiguous() for name, tensor in weights.items()}, path)


def load_weights(path: Path, networks: "Networks") -> None:
    """Fill `networks`, in place, once every tensor of the file is known to fit.

    `safe_open` maps the file and refuses one whose length differs from what its header says; no tensor takes memory
    before all names and shapes are compared. Weights that were stored in half the size become float32 again.

    Raises:
        ArtifactError: The file is damaged, or the name, shape or dtype of a tensor is another one.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    expected = named_weights(networks)
    try:
        with safe_open(path, framework="pt") as file:
            found = set(file.keys())
            for name in sorted(expected.keys() ^ found):
                presence = ("no tensor", "one") if name in expected else ("an unknown tensor", "none")
                raise ArtifactError(str(path), f"{presence[0]} {name}", f"{presence[1]} by that name", REMEDY)
            for name, target in expected.items():
                _check(path, name, "shape", file.get_slice(name).get_shape(), list(target.shape))
            tensors = {name: file.get_tensor(name) for name in expected}
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error
    for name, target in expected.items():
        if (tensors[name].dtype, target.dtype) != (torch.float16, torch.float32):
            _check(path, name, "dtype", tensors[name].dtype, target.dtype)
    for name, target in expected.items():
        target.copy_(tensors[name])


def _unreadable(path: Path, error: Exception) -> ArtifactError:
    return ArtifactError(str(path), f"an unreadable file ({error})", "safetensors weights", REMEDY)


def _check(path: Path, name: str, what: str, found: object, expected: object) -> None:
    if found != expected:
        raise ArtifactError(str(path), f"{what} {found} of tensor {name}", f"{what} {expected}", REMEDY)
