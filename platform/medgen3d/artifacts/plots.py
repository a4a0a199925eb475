"""Plots of statistics, real against synthetic: PNG files as bytes, the same bytes for the same input."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REAL_COLOUR, SYNTHETIC_COLOUR = "#56b4e9", "#e69f00"
_BACKGROUND, _TEXT, _GRID = "#111418", "#e2e6eb", "#5b6570"  # those of the montages


def label_volume_plot(real_ml: Mapping[str, Sequence[float]], synthetic_ml: Mapping[str, Sequence[float]]) -> bytes:
    """Every case's label volumes as shares of the label's mean real volume; thick bars mark the means.

    Args:
        real_ml: {label name: one volume per real case in millilitres}.
        synthetic_ml: The same for the synthetic cases, with the same names.
    """
    figure, axes = _figure(height_inches=1.1 + 0.6 * len(real_ml))
    for row, name in enumerate(real_ml):
        reference = float(np.mean(real_ml[name])) or 1.0  # a label that no real case has is shown in millilitres
        for volumes, offset, colour in (
            (real_ml[name], -0.18, REAL_COLOUR),
            (synthetic_ml[name], 0.18, SYNTHETIC_COLOUR),
        ):
            shares = np.asarray(volumes) / reference
            # Spread over the row's height in case order: random jitter would need a seed and say no more.
            heights = row + offset + np.linspace(-0.11, 0.11, len(shares))
            axes.plot(shares, heights, "o", markersize=3.5, alpha=0.55, markeredgewidth=0, color=colour)
            axes.plot([shares.mean()] * 2, [row + offset - 0.17, row + offset + 0.17], color=colour, linewidth=3)
    axes.axvline(1.0, color=_GRID, linewidth=1, zorder=0)
    axes.set_yticks(range(len(real_ml)), map(_short, real_ml))
    axes.set_ylim(len(real_ml) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel("volume / mean real volume")
    return _png(figure)


def intensity_plot(real: NDArray[np.floating], synthetic: NDArray[np.floating]) -> bytes:
    """Two mean intensity histograms over [0, 1]: shares [bins], each summing to 1."""
    figure, axes = _figure(height_inches=3.2)
    edges = np.linspace(0, 1, len(real) + 1)
    for shares, colour in ((real, REAL_COLOUR), (synthetic, SYNTHETIC_COLOUR)):
        axes.stairs(shares * len(shares), edges, color=colour, linewidth=1.8)
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("intensity between each volume's percentiles 0.5 and 99.5")
    axes.set_ylabel("density")
    return _png(figure)


def usefulness_plot(
    real: Mapping[int, Sequence[float]], both: Mapping[int, Sequence[float]], synthetic: Mapping[int, Sequence[float]]
) -> bytes:
    """Dice against the number of real cases: a point per repetition, lines through the means.

    Args:
        real: {number of real cases: one Dice per repetition} of training on these cases.
        both: The same with synthetic pairs besides them.
        synthetic: The same with the synthetic pairs alone, at the number of cases that their generator has seen;
            hollow points.
    """
    figure, axes = _figure(height_inches=3.6, names=("real", "real + synthetic"))
    for arm, colour in ((real, REAL_COLOUR), (both, SYNTHETIC_COLOUR)):
        axes.plot(list(arm), [float(np.mean(dice)) for dice in arm.values()], color=colour, linewidth=1.8)
        for number, dice in arm.items():
            axes.plot([number] * len(dice), dice, "o", markersize=5, alpha=0.7, markeredgewidth=0, color=colour)
    for number, dice in synthetic.items():
        axes.plot([number] * len(dice), dice, "D", markersize=6, markerfacecolor="none", color=SYNTHETIC_COLOUR)
        point, beside = (number, float(np.mean(dice))), (-9, 0)
        text = axes.annotate("synthetic alone", point, beside, textcoords="offset points", ha="right", va="center")
        text.set(color=_TEXT, fontsize=9)
    numbers = sorted({*real, *both, *synthetic})
    axes.set_xscale("log")
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.minorticks_off()
    axes.margins(0.08, 0.12)
    axes.set_xlabel("real training cases")
    axes.set_ylabel("mean Dice on real test cases")
    return _png(figure)


def histogram_grid(
    real: Sequence[Sequence[NDArray[np.floating]]],
    synthetic: Sequence[Sequence[NDArray[np.floating]]],
    rows: Sequence[str],
    columns: Sequence[str],
) -> bytes:
    """Small histograms, shares of the cases of each kind: real filled, synthetic as an outline.

    Args:
        real: Per row and column, one number per real case; there may be none.
        synthetic: The same for the synthetic cases.
        rows: Their names.
        columns: Their names.
    """
    figure, panels = _panels(0.8 + 1.15 * len(rows), len(rows), len(columns))
    for (row, column), axes in np.ndenumerate(panels):
        groups = real[row][column], synthetic[row][column]
        edges = _bin_edges(np.concatenate(groups))
        for numbers, colour, fill in zip(groups, (REAL_COLOUR, SYNTHETIC_COLOUR), (True, False), strict=True):
            shares = np.histogram(numbers, edges)[0] / max(1, len(numbers))
            axes.stairs(shares, edges, color=colour, fill=fill, linewidth=1.8)
        axes.set_yticks([])
        axes.set_ylim(bottom=0)
        axes.locator_params(axis="x", nbins=5, min_n_ticks=1, integer=_are_whole(np.concatenate(groups)))
        if row == 0:
            axes.set_title(columns[column], fontsize=10)
        if column == 0:
            axes.set_ylabel(_short(rows[row]), rotation=0, ha="right", va="center", parse_math=False)
    return _png(figure)


def spectrum_plot(real: NDArray[np.floating], synthetic: NDArray[np.floating], names: Sequence[str]) -> bytes:
    """Mean spectra with bands that hold 90 % of the cases, one panel per axis.

    Args:
        real: [cases, axes, bins], logarithms (base 10) of shares of power in bins from 0 to 0.5 cycles per slice.
        synthetic: The same for the synthetic cases.
        names: Of the axes.
    """
    figure, panels = _panels(3.2, 1, len(names))
    places = (np.arange(real.shape[2]) + 0.5) / real.shape[2] / 2
    for axis, axes in enumerate(panels[0]):
        if axis > 0:
            axes.sharey(panels[0, 0])
        for spectra, colour in ((real[:, axis], REAL_COLOUR), (synthetic[:, axis], SYNTHETIC_COLOUR)):
            known = spectra[np.isfinite(spectra).all(axis=1)]
            if len(known):
                axes.fill_between(places, *np.quantile(known, (0.05, 0.95), axis=0), color=colour, alpha=0.25, lw=0)
                axes.plot(places, known.mean(axis=0), color=colour, linewidth=1.8)
        axes.set_title(names[axis], fontsize=10)
        axes.set_xlim(0, 0.5)
        axes.tick_params(labelleft=axis == 0)
    panels[0, len(names) // 2].set_xlabel("cycles per slice")
    panels[0, 0].set_ylabel("log10 share of power")
    return _png(figure)


def _bin_edges(numbers: NDArray[np.floating]) -> NDArray[np.floating]:
    """Edges for all numbers: one bin per number where they are whole and few, else 16 bins."""
    if len(numbers) and _are_whole(numbers) and np.ptp(numbers) < 16:
        return np.arange(numbers.min() - 0.5, numbers.max() + 1)
    return np.histogram_bin_edges(numbers, bins=16)


def _are_whole(numbers: NDArray[np.floating]) -> bool:
    return bool((numbers == np.rint(numbers)).all())


def _short(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"


def _figure(height_inches: float, names: tuple[str, str] = ("real", "synthetic")) -> "tuple[Figure, Axes]":
    """An empty dark figure of one panel with the legend of its two colours."""
    figure, panels = _panels(height_inches, 1, 1, names)
    return figure, panels[0, 0]


def _panels(
    height_inches: float, num_rows: int, num_columns: int, names: tuple[str, str] = ("real", "synthetic")
) -> "tuple[Figure, NDArray[Any]]":
    """The same with axes [rows, columns]; matplotlib's global state stays untouched."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(7.2, height_inches), dpi=130, facecolor=_BACKGROUND, layout="constrained")
    panels = figure.subplots(num_rows, num_columns, squeeze=False, subplot_kw={"facecolor": _BACKGROUND})
    for axes in panels.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["bottom", "left"]].set_color(_GRID)
        axes.tick_params(colors=_TEXT)
        axes.xaxis.label.set_color(_TEXT)
        axes.yaxis.label.set_color(_TEXT)
        axes.title.set_color(_TEXT)
    keys = [Line2D([], [], color=colour, linewidth=3) for colour in (REAL_COLOUR, SYNTHETIC_COLOUR)]
    figure.legend(keys, names, loc="outside upper right", ncols=2, labelcolor=_TEXT, frameon=False)
    return figure, panels


def _png(figure: "Figure") -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})  # the version would change the bytes
    return file.getvalue()
