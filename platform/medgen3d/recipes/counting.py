"""Counting of operations and memory: work is done on tensors without contents, and what it would take is added up."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet, finalize

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True, slots=True)
class Counted:
    """One piece of work. peak: Largest sum of the tensors that it makes [bytes]."""

    tflop: float
    peak: int


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make while it is on; `peak` is the largest sum of them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: WeakSet[torch.UntypedStorage] = WeakSet()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._watch(tensor.untyped_storage())
        return result

    def _watch(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._seen:
            self._seen.add(storage)
            size = storage.nbytes()
            self.now += size
            self.peak = max(self.peak, self.now)
            finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self.now -= size


def in_bf16() -> torch.autocast:
    """As on a GPU that has it."""
    return torch.autocast("cpu", torch.bfloat16)


@contextmanager
def _norms_in_float32() -> Iterator[None]:
    """As CUDA's autocast has it: on a CPU norms would be computed in the precision that they meet."""
    names = ("group_norm", "instance_norm")
    own = {name: getattr(F, name) for name in names}
    with ExitStack() as stack:
        for name, norm in own.items():
            setattr(F, name, _of_float32(norm))
            stack.callback(setattr, F, name, norm)
        yield


def _of_float32(norm: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda features, *rest, **more: norm(features.float(), *rest, **more)


def counted(work: Callable[[], object], autocast: AbstractContextManager[object] | None = None) -> Counted:
    """Do some work on tensors without contents, in bfloat16 unless it says what its precision is.

    Twice: while torch counts operations, it keeps what activation checkpointing would let go.
    """
    with without_contents(autocast or in_bf16()):
        return Counted(tflop_of(work), peak_of(work))


@contextmanager
def without_contents(autocast: AbstractContextManager[object]) -> Iterator[None]:
    """Tensors that are made meanwhile have a shape and a type and nothing else."""
    with FakeTensorMode(allow_non_fake_inputs=True), _norms_in_float32(), autocast:
        yield


def tflop_of(work: Callable[[], object]) -> float:
    """Floating point operations, 10^12."""
    with FlopCounterMode(display=False) as flops:
        work()
    return float(flops.get_total_flops()) / 1e12


def peak_of(work: Callable[[], object]) -> int:
    """Largest sum of the tensors that it makes [bytes]; what it returns lives as long as it runs."""
    with PeakMemory() as memory:
        kept = work()  # until the mode ends, so that what is returned counts as living
        del kept
    return memory.peak
