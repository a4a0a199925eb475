"""Usefulness: the worth of synthetic pairs for training a segmenter, from the trials of `medgen3d usefulness`.

TSTR (train on synthetic, test on real) over TRTR (train on real, test on real), and real cases with synthetic pairs
against the same real cases alone.
"""

from collections.abc import Mapping
from typing import get_args

import numpy as np
from scipy import stats

from medgen3d.artifacts.plots import usefulness_plot
from medgen3d.artifacts.report_parts import Cell, Metric, Picture, ReportSection, Table
from medgen3d.artifacts.usefulness_results import Arm, Trial, UsefulnessResults
from medgen3d.evaluation.section_result import SectionResult

PLOT = "usefulness.png"
_CONFIDENCE = 0.95
_ARMS: tuple[Arm, ...] = ("real", "real+synthetic", "synthetic")
_ABOUT = (
    "The same segmenter, trained for the same number of steps on real cases, on synthetic pairs, or on both, and "
    "tested on {num_test} real test cases that neither it nor a generator has seen. Where both are used, each example "
    "comes from the real cases with probability {real_share:g}. A generator has seen the real cases that stand beside "
    "its name, and no others. Dice is the mean over labels and test cases. Intervals are 95 % t-intervals of the mean "
    "over seeds; differences and ratios are taken within a seed, since its segmenters begin with the same weights. "
    "They say nothing about other choices of cases."
)


def usefulness(results: UsefulnessResults) -> SectionResult:
    """Metrics, table and curve of a study, finished or not.

    Metrics: `usefulness.trtr`, `usefulness.tstr` and their ratio `usefulness.tstr_ratio` with all real cases;
    `usefulness.gain.<n>` for every size. What has no finished trials has no value.
    """
    about = _ABOUT.format(num_test=len(results.test_cases), real_share=results.settings["real_share"])
    title = "Usefulness for training"
    if not results.trials:
        reason = "no trial of the study has finished; go on with the same `medgen3d usefulness`"
        return SectionResult(section=ReportSection(name="usefulness", title=title, about=about, not_run=reason))
    caption = (
        "Dice on real test cases against the number of real training cases, alone and with synthetic pairs of a "
        "generator that has seen the same cases. A point is one seed, a line goes through the means."
    )
    section = ReportSection(
        name="usefulness",
        title=title,
        about=about,
        metrics=[*_all_cases(results), *(_gain(results, size.num_cases) for size in results.sizes)],
        tables=[_table(results)],
        pictures=[Picture(file=PLOT, caption=caption, alt=_alt(results))],
    )
    return SectionResult(section=section, pictures={PLOT: usefulness_plot(*(_curve(results, arm) for arm in _ARMS))})


def t_interval(values: list[float]) -> tuple[float, float] | None:
    """95 % confidence interval of the mean by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None
    reach = float(stats.t.ppf((1 + _CONFIDENCE) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    mean = float(np.mean(values))
    return mean - reach, mean + reach


def _all_cases(results: UsefulnessResults) -> list[Metric]:
    """TRTR, TSTR and their ratio, with all real training cases."""
    real, synthetic = (results.of(arm, results.num_train) for arm in ("real", "synthetic"))
    pairs = [pair for pair in _paired(synthetic, real) if pair[1]]
    ratios = [tstr / trtr for tstr, trtr in pairs]
    ratio_of_means = sum(tstr for tstr, _ in pairs) / sum(trtr for _, trtr in pairs) if pairs else None
    return [
        _metric("trtr", "Dice of training on all real cases", [trial.mean_dice for trial in real.values()]),
        _metric("tstr", "Dice of training on synthetic pairs", [trial.mean_dice for trial in synthetic.values()]),
        _metric("tstr_ratio", "Synthetic over real (TSTR / TRTR)", ratios, ratio_of_means),
    ]


def _gain(results: UsefulnessResults, num_cases: int) -> Metric:
    both, real = (results.of(arm, num_cases) for arm in ("real+synthetic", "real"))
    gains = [one - other for one, other in _paired(both, real)]
    return _metric(f"gain.{num_cases}", f"Dice gained by synthetic pairs besides {num_cases} real cases", gains)


def _metric(name: str, title: str, values: list[float], value: float | None = None) -> Metric:
    """A mean over seeds; `value` where it is something else than the mean of `values`."""
    note = "" if values else "no trials of this kind have finished"
    if values and value is None:
        value = float(np.mean(values))
    return Metric(
        name=f"usefulness.{name}",
        title=title,
        value=value if values else None,
        interval=t_interval(values),
        num=len(values),
        num_of="seeds",
        note=note,
    )


def _paired(ones: Mapping[int, Trial], others: Mapping[int, Trial]) -> list[tuple[float, float]]:
    """The mean Dice of both, for the seeds that both have."""
    return [(one.mean_dice, others[seed].mean_dice) for seed, one in ones.items() if seed in others]


def _table(results: UsefulnessResults) -> Table:
    pairs = {size.num_cases: size.num_pairs for size in results.sizes}
    rows = [
        _row(results, arm, number, pairs.get(number, 0) if arm != "real" else 0)
        for number in sorted({trial.num_cases for trial in results.trials})
        for arm in get_args(Arm)
        if results.of(arm, number)
    ]
    return Table(
        title="All trials",
        columns=["trained on", "real cases", "synthetic pairs", "seeds", "Dice", "standard deviation", *results.labels],
        rows=rows,
        note="Of training on synthetic pairs alone, the real cases are those that the generator has seen.",
    )


def _row(results: UsefulnessResults, arm: Arm, num_cases: int, num_pairs: int) -> list[Cell]:
    trials = list(results.of(arm, num_cases).values())
    dice = [trial.mean_dice for trial in trials]
    deviation = float(np.std(dice, ddof=1)) if len(dice) > 1 else None
    by_label = [[trial.dice[label] for trial in trials if label in trial.dice] for label in results.labels]
    means = [float(np.mean(each)) if each else None for each in by_label]
    return [arm, num_cases, num_pairs, len(trials), float(np.mean(dice)), deviation, *means]


def _curve(results: UsefulnessResults, arm: Arm) -> dict[int, list[float]]:
    """{number of cases: Dice of every seed} of an arm."""
    numbers = sorted({trial.num_cases for trial in results.trials if trial.arm == arm})
    return {number: [trial.mean_dice for trial in results.of(arm, number).values()] for number in numbers}


def _alt(results: UsefulnessResults) -> str:
    means = {arm: {n: float(np.mean(dice)) for n, dice in _curve(results, arm).items()} for arm in _ARMS}
    lines = [
        f"{arm}: " + ", ".join(f"{dice:.3f} with {n}" for n, dice in found.items()) for arm, found in means.items()
    ]
    return "Mean Dice against real cases. " + "; ".join(line for line in lines if not line.endswith(": "))
