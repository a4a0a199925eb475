"""Targets of a single case, such as `Anterior.volume_ml > 1.2`, and the distance of a mask from them. Pure."""

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from medgen3d.core.errors import ConfigError
from medgen3d.core.labels import LabelTable
from medgen3d.measures.mask_measures import Mask, Spacing, label_components, label_holes

MEASURES = ("volume_ml", "components", "holes")
_TARGET = re.compile(rf"\s*(?P<label>.+)\.(?P<measure>{'|'.join(MEASURES)})\s*(?P<sign><=|>=|<|>)\s*(?P<value>\S+)\s*")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A wish about one label of a mask. label: Its contiguous id; text: As the user wrote it."""

    text: str
    label: int
    measure: str
    sign: str
    value: float

    def is_met(self, mask: Mask, spacing_mm: Spacing) -> bool:
        """True where a mask [D, h, w] of contiguous ids fulfils it."""
        return _COMPARE[self.sign](self._found(mask, spacing_mm), self.value)

    def shortfall(self, mask: Mask, spacing_mm: Spacing) -> float:
        """Distance of a mask from it, as a share of the larger of the two numbers: 0 where it is met, else up to 1."""
        found = self._found(mask, spacing_mm)
        if _COMPARE[self.sign](found, self.value):
            return 0.0
        return abs(found - self.value) / max(abs(found), abs(self.value), 1e-12)

    def _found(self, mask: Mask, spacing_mm: Spacing) -> float:
        if self.measure == "volume_ml":
            return float(np.count_nonzero(mask == self.label) * np.prod(spacing_mm) / 1000.0)
        own = (mask == self.label).astype(np.uint8)
        return float((label_components if self.measure == "components" else label_holes)(own, 2)[1])


def parse_target(text: str, table: LabelTable) -> Target:
    """Read a target.

    Raises:
        ConfigError: It is none, or names a label or a measure that there is not.
    """
    match = _TARGET.fullmatch(text)
    names = list(table.titles)
    try:
        if match and match["label"] in names:
            return Target(
                text=text.strip(),
                label=names.index(match["label"]),
                measure=match["measure"],
                sign=match["sign"],
                value=float(match["value"]),
            )
    except ValueError:
        pass  # the number is none
    raise ConfigError(
        f"{text!r} is no target; expected LABEL.MEASURE, one of < <= > >= and a number, such as "
        f"`{names[-1]}.volume_ml > 1.2`, with a label of {', '.join(names)} and a measure of {', '.join(MEASURES)}"
    )


def best_candidate(masks: Sequence[Mask], targets: Sequence[Target], spacing_mm: Spacing) -> int:
    """The place of the mask that is closest to the targets in sum; of equals the first."""
    return int(np.argmin([sum(target.shortfall(mask, spacing_mm) for target in targets) for mask in masks]))


def unmet(mask: Mask, targets: Sequence[Target], spacing_mm: Spacing) -> list[str]:
    """The targets that a mask does not meet, as the user wrote them."""
    return [target.text for target in targets if not target.is_met(mask, spacing_mm)]
