"""The result of one kind of evaluation, a section with its pictures, and the way to spread work over many cases."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from medgen3d.artifacts.report_parts import ReportSection

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class SectionResult:
    """A section of the report and the pictures that it names: {file name: PNG}."""

    section: ReportSection
    pictures: dict[str, bytes] = field(default_factory=dict)


class MapItems(Protocol):
    """Applies a function to every item, in order; on a cluster each call is a Ray task."""

    def __call__(self, what: str, function: Callable[[Item], Result], items: Sequence[Item], /) -> list[Result]:
        """Results in the order of `items`; `what` names the work in the progress display ("read cases")."""
        ...


def map_here(_what: str, function: Callable[[Item], Result], items: Sequence[Item], /) -> list[Result]:
    """`MapItems` in this process."""
    return [function(item) for item in items]
