"""Intensities of a CT that are not what they should be: no Hounsfield units, or outside the window of training."""

from typing import Any, NamedTuple

from numpy.typing import NDArray

from medgen3d.artifacts.intensity import Intensity
from medgen3d.ingest.problems import Kind

_NARROW = 0.01
"""Share of the window that the values of a CT fill at least."""
_MANY = 0.05
"""Share of voxels above the window from which a volume without a value below 0 is no CT in Hounsfield units."""
_MOST, _HALF = 0.9, 0.5
"""Shares of the labelled voxels outside the window from which a case is refused, and from which it is noted."""
_RESCALE = "Export the CT with its rescale slope and intercept, so that water is 0 and air -1000"


class WindowFinding(NamedTuple):
    """A reason to refuse a case; with `kind` None a note, which `found` is."""

    kind: Kind | None
    found: str
    expected: str = ""
    remedy: str = ""


def check_window(image: NDArray[Any], labelled: NDArray[Any] | None, window: Intensity) -> WindowFinding | None:
    """What is wrong with the intensities of a CT, if anything; the worst that is found.

    Args:
        image: Finite, [D, H, W].
        labelled: Its values where the mask has a label, [N]; None where image and mask do not fit.
        window: The Hounsfield units that are trained on.
    """
    low, high = window.low, window.high
    smallest, largest = float(image.min()), float(image.max())
    if largest - smallest < _NARROW * (high - low):
        found = f"values from {smallest:g} to {largest:g}"
        return WindowFinding("not in Hounsfield units", found, f"a range like {low:g} to {high:g}", f"{_RESCALE}.")
    above = float((image >= high).mean()) if smallest >= 0 else 0.0
    if above >= _MANY:
        found = f"no value below 0, and {above:.0%} of the voxels at {high:g} or above"
        remedy = f"{_RESCALE}, or choose another ingest.hu_window."
        return WindowFinding("not in Hounsfield units", found, "air near -1000 and soft tissue near 0", remedy)
    outside = 0.0 if labelled is None or not labelled.size else float(((labelled <= low) | (labelled >= high)).mean())
    if outside > _MOST:
        found, expected = f"{outside:.0%} of the labelled voxels", f"most of them within {low:g} to {high:g}"
        return WindowFinding("outside the window", found, expected, f"Choose another ingest.hu_window. {_RESCALE}.")
    if outside > _HALF:
        return WindowFinding(None, f"more than half of the labelled voxels lie outside the window {low:g} to {high:g}")
    if smallest >= 0:
        return WindowFinding(None, "no value lies below 0; in Hounsfield units air is about -1000")
    return None
