"""`MapItems` on Ray: each item is a task, so that a set is measured by as many processes as there are CPUs."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import ray

from medgen3d.core.outcome import Outcome
from medgen3d.evaluation.section_result import Item, MapItems, Result

Progress = Callable[[str, int, int], None]
"""(what, done, total)."""


def map_on_ray(progress: Progress) -> MapItems:
    """A `MapItems` whose calls are tasks of the connected Ray cluster, one CPU and one torch thread each.

    The function travels once, with whatever it holds, and may be large; items and results should be small. The first
    error of ours ends the work and is raised as it is, not wrapped into Ray's.
    """

    def map_items(what: str, function: Callable[[Item], Result], items: Sequence[Item], /) -> list[Result]:
        return _results(ray.put(function), items, lambda done: progress(what, done, len(items)))

    return map_items


def _results(function: Any, items: Sequence[Any], told: Callable[[int], None]) -> list[Any]:
    """The results in the order of the items, with a bounded number of tasks under way.

    After an error those under way are left to end by themselves: they are few and short, and Ray can crash when a task
    is cancelled just as it ends.
    """
    task = ray.remote(num_cpus=1)(_apply)
    results: dict[int, Any] = {}
    at_work: dict[Any, int] = {}
    waiting = list(reversed(range(len(items))))
    slots = num_slots(num_cpus=1)
    while waiting or at_work:
        while waiting and len(at_work) < slots:
            place = waiting.pop()
            at_work[task.remote(function, items[place])] = place
        for done in ray.wait(list(at_work))[0]:
            results[at_work.pop(done)] = ray.get(done).unwrap()
            told(len(results))
    return [results[place] for place in range(len(items))]


def _apply(function: Callable[[Any], Any], item: Any) -> Outcome[Any]:
    if torch := sys.modules.get("torch"):  # loaded by what the function needs, if it needs it
        torch.set_num_threads(1)
    return Outcome.of(function, item)


def num_slots(num_cpus: int) -> int:
    """Tasks of `num_cpus` CPUs at a time. A local Ray has more logical CPUs than its machine has real ones."""
    is_local = len(ray.nodes()) == 1
    have = (os.cpu_count() or 1) if is_local else int(ray.cluster_resources().get("CPU", 1))
    return max(1, have // num_cpus)
