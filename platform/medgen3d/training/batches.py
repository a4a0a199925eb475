"""The examples that a worker sees, a pure function of (seed, step, rank), so that a run can resume anywhere."""

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Self

import numpy as np
from torch.utils.data import DataLoader, Dataset

from medgen3d.artifacts.examples import open_example
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.config.training import Augmentation
from medgen3d.core.seeds import stream_seed
from medgen3d.training.augmentation import augmented
from medgen3d_stages.arrays import Batch, Example
from medgen3d_stages.contract import Stage

OPEN_CASES = 256
"""Cases that a process keeps open. A file's voxels are not kept: what is read often is in the machine's page cache."""
CACHE_BYTES = 2**31
"""Voxels that a process keeps of cases that come as whole arrays."""
NO_CHANGES = Augmentation()


class ExampleSet(Dataset[Batch]):
    """An endless numbered sequence of training examples; each pass visits every case once, in an order of its own."""

    def __init__(
        self,
        case_ids: Sequence[str],
        open_case: Callable[[str], Example],
        stage: Stage,
        seed: int,
        changes: Augmentation = NO_CHANGES,
    ) -> None:
        self.case_ids, self.stage, self.seed, self.changes = case_ids, stage, seed, changes
        self.open_case, self._opened = open_case, OrderedDict[str, Example]()

    @classmethod
    def of(cls, prepared: PreparedSet, stage: Stage, seed: int, changes: Augmentation = NO_CHANGES) -> Self:
        """Of all training cases of a prepared set, each changed anew whenever it is visited."""
        return cls(prepared.info.case_ids("train"), functools.partial(open_example, prepared), stage, seed, changes)

    def __getitem__(self, number: int) -> Batch:
        pass_number, place = divmod(number, len(self.case_ids))
        order = np.random.default_rng(stream_seed(self.seed, self.stage.name, "order", pass_number))
        case_id = self.case_ids[order.permutation(len(self.case_ids))[place]]
        example = self._example(case_id)
        drawn = np.random.default_rng(stream_seed(self.seed, self.stage.name, "bend", number))
        example = augmented(example, self.stage.spec.spacing_mm, self.changes, drawn)
        rng = np.random.default_rng(stream_seed(self.seed, self.stage.name, "cut", number))
        return self.stage.cut(example, rng)

    def _example(self, case_id: str) -> Example:
        """The case as it was opened; beyond OPEN_CASES or CACHE_BYTES the least recently used is let go."""
        if case_id not in self._opened:
            self._opened[case_id] = self.open_case(case_id)
            while len(self._opened) > OPEN_CASES or (len(self._opened) > 1 and self._kept_bytes() > CACHE_BYTES):
                self._opened.popitem(last=False)
        self._opened.move_to_end(case_id)
        return self._opened[case_id]

    def _kept_bytes(self) -> int:
        volumes = (volume for example in self._opened.values() for volume in (example.image, example.mask))
        return sum(volume.nbytes for volume in volumes if isinstance(volume, np.ndarray))


class StepSampler:
    """The example numbers of each step that one rank takes, from the step after `step` to `steps`."""

    def __init__(self, step: int, steps: int, batch_size: int, rank: int, world_size: int) -> None:
        self.step, self.steps, self.batch_size, self.rank, self.world_size = step, steps, batch_size, rank, world_size

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.step, self.steps):
            first = (step * self.world_size + self.rank) * self.batch_size
            yield list(range(first, first + self.batch_size))

    def __len__(self) -> int:
        return max(self.steps - self.step, 0)


def batches(examples: Dataset[Batch], sampler: StepSampler, loader_workers: int) -> DataLoader[Batch]:
    """One batch per remaining step."""
    return DataLoader(
        examples, batch_sampler=sampler, num_workers=loader_workers, persistent_workers=loader_workers > 0
    )
