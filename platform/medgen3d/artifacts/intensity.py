"""Intensity maps: how images get from scanner units into [-1, 1], in which networks see them, and back."""

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

Modality = Literal["CT", "MR"]


class Intensity(BaseModel):
    """The linear map between scanner units and [-1, 1]: `low` becomes -1 and `high` becomes +1."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: float
    high: float

    @classmethod
    def median_of(cls, maps: Sequence[Self]) -> Self:
        """The map between the median low and the median high of several."""
        return cls(low=float(np.median([one.low for one in maps])), high=float(np.median([one.high for one in maps])))

    def to_unit(self, values: NDArray[np.generic]) -> NDArray[np.float32]:
        """Scanner units -> [-1, 1]; what lies outside low..high is clipped."""
        scaled = (np.asarray(values, dtype=np.float64) - self.low) * (2.0 / (self.high - self.low)) - 1.0
        return np.clip(scaled, -1.0, 1.0).astype(np.float32)

    def from_unit(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """[-1, 1] -> scanner units."""
        return ((np.asarray(values, dtype=np.float64) + 1.0) * ((self.high - self.low) / 2.0) + self.low).astype(
            np.float32
        )


class IntensityRule(BaseModel):
    """How a volume's own intensity map is found: a fixed window of Hounsfield units, or percentiles of the volume."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["hu_window", "percentiles"]
    low: float
    high: float

    @classmethod
    def of(cls, modality: Modality, hu_window: tuple[float, float], percentiles: tuple[float, float]) -> Self:
        """The rule of a modality: CT has a scale of its own, MR has none."""
        kind, (low, high) = ("hu_window", hu_window) if modality == "CT" else ("percentiles", percentiles)
        return cls.model_validate({"kind": kind, "low": low, "high": high})

    def map_of(self, image: NDArray[np.generic]) -> Intensity:
        """The map of one volume [D, H, W] in scanner units; `low` equals `high` where the volume is constant."""
        if self.kind == "hu_window":
            return Intensity(low=self.low, high=self.high)
        low, high = np.percentile(np.asarray(image).astype(np.float32, copy=False), (self.low, self.high))
        return Intensity(low=float(low), high=float(high))
