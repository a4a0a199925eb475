"""A cache of trained stages by pipeline, bounded in bytes: the least recently used ones are evicted."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medgen3d_stages.chain import TrainedStage

Load = Callable[[str], "TrainedStage"]
"""Pipeline reference of one version -> its stage with its networks on the device; may take seconds."""


class ModelCache:
    """One stage of several pipelines. Methods are called from one event loop; loading never blocks it.

    Networks that samples still advance with live on until these end, whatever is evicted here.

    Args:
        load: How a stage is loaded.
        max_bytes: Weights that are cached [bytes]; the one that was asked for last stays even if it alone is larger.
    """

    def __init__(self, load: Load, max_bytes: int) -> None:
        self._load, self._max_bytes = load, max_bytes
        self._cached: dict[str, TrainedStage] = {}  # the least recently used first
        self._lock = asyncio.Lock()

    @property
    def references(self) -> list[str]:
        """What is in memory, the least recently used first."""
        return list(self._cached)

    async def get(self, reference: str) -> "TrainedStage":
        """The stage of this pipeline, loaded if need be.

        Raises:
            Medgen3dError: It cannot be found or is damaged.
        """
        if reference not in self._cached:
            async with self._lock:  # one at a time: two would need memory for both, or load the same one twice
                if reference not in self._cached:
                    self._cached[reference] = await asyncio.to_thread(self._load, reference)
        trained = self._cached.pop(reference)
        self._cached[reference] = trained
        self._evict()
        return trained

    def _evict(self) -> None:
        while len(self._cached) > 1 and sum(map(num_bytes, self._cached.values())) > self._max_bytes:
            del self._cached[next(iter(self._cached))]


def num_bytes(trained: "TrainedStage") -> int:
    """Memory of a stage's weights [bytes]."""
    return sum(
        tensor.nbytes for network in trained.networks.values() for tensor in (*network.parameters(), *network.buffers())
    )
