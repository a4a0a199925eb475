"""The worth of the refiner's options: a table, each row from the same masks and incoming images.

    medgen3d pipeline export hippocampus --out exported
    python benchmarks/refinement.py --bundles exported --real prepared --judge segmenter-bundle [--count 10]

The images are drawn once for masks of the test split, then refined with each choice and compared with all real cases of
that split. FID: of slices, by the judge's encoder, mean of the three views. Dice: of the judge against the mask.
Intensity: distance of histograms. Slice step: mean difference of neighbouring slices over the image's standard
deviation, as a share of that in real cases, along D, H and W; below 1 is too smooth. Spectrum: mean distance of log10
spectra of these differences, along D, H and W. ±: half a 95 % interval over cases. CPU seconds per case on one thread.
Real images are among those that they are compared with, which flatters their FID.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from medgen3d.artifacts.bundle import read_bundle
from medgen3d.artifacts.examples import read_example
from medgen3d.artifacts.prepared_set import PreparedSet, Split
from medgen3d.evaluation.agreement import compare_masks
from medgen3d.evaluation.consistency import ConsistencyMeasures, measure_consistency
from medgen3d.evaluation.extractors import JudgeExtractor
from medgen3d.evaluation.feature_distances import frechet_distance
from medgen3d.evaluation.fidelity import CaseFidelity, measure_fidelity
from medgen3d.evaluation.intensities import histogram_distance
from medgen3d.evaluation.judge import SegmenterJudge, judge_of
from medgen3d_stages.arrays import Image, Mask
from medgen3d_stages.chain import TrainedStage, draw_images, refine

CHOICES: dict[str, dict[str, object]] = {
    "as shipped": {},
    **{f"{count} steps": {"sampling_steps": count} for count in (1, 2, 4, 8, 25)},
    "start 0.5": {"start": 0.5},
    "end 0.02": {"end": 0.02},
    "end 0.05": {"end": 0.05},
    "guidance 1.5": {"guidance": 1.5},
    "fusion average": {"fusion": "average"},
    "fusion sequential": {"fusion": "sequential"},
}
VIEWS = ("axial", "coronal", "sagittal")
COLUMNS = """| | FID | Dice | intensity | slice step D / H / W | spectrum D / H / W | CPU s |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |"""


@dataclass(frozen=True)
class Measured:
    """One image, or the real one of a case."""

    fidelity: CaseFidelity
    consistency: ConsistencyMeasures
    dice: float


@dataclass(frozen=True)
class Bench:
    """What every row of a table shares. real: All cases that are compared with; those of `masks` come first."""

    masks: list[Mask]
    incoming: list[Image]
    real: list[Measured]
    refiner: TrainedStage
    judge: SegmenterJudge

    def print_head(self) -> None:
        """The first lines of the table."""
        print(f"{len(self.masks)} masks, {len(self.real)} real cases\n\n{COLUMNS}")
        print(row("real images of these masks", self.real[: len(self.masks)], self.real, 0.0))
        self.print_row("not refined", lambda: self.incoming)

    def print_row(self, name: str, draw: Callable[[], list[Image]]) -> list[Image]:
        """What is drawn, with the time that it takes; returns the images."""
        since = time.process_time()
        images = draw()
        seconds = (time.process_time() - since) / len(self.masks)
        cases = [measured(*pair, self.judge) for pair in zip(images, self.masks, strict=True)]
        print(row(name, cases, self.real, seconds), flush=True)
        return images


def arguments(about: str) -> argparse.ArgumentParser:
    """What a bench is made of."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, required=True, help="folder with a bundle per stage")
    parser.add_argument("--real", type=Path, required=True, help="the prepared set that the pipeline was trained on")
    parser.add_argument("--judge", type=Path, required=True, help="bundle of a segmenter trained on real pairs")
    parser.add_argument("--count", type=int, default=10, help="masks, at least 2")
    return parser


def bench(options: argparse.Namespace, *splits: Split) -> Bench:
    """Masks are the first of these splits; all of them are compared with. One thread of the CPU."""
    torch.set_num_threads(1)
    prepared = PreparedSet(options.real)
    case_ids = [case_id for split in splits for case_id in prepared.info.case_ids(split)]
    pairs = [read_example(prepared, case_id).cropped() for case_id in case_ids]
    judge = judge_of(read_bundle(options.judge), "judge")
    real = [measured(image, mask, judge) for image, mask in pairs]
    masks = [mask for _, mask in pairs[: options.count]]
    generator, refiner = (
        read_bundle(options.bundles / stage).trained_stage() for stage in ("image_sequence_generator", "refiner")
    )
    return Bench(masks, draw_images(generator, masks, range(len(masks))), real, refiner, judge)


def main() -> None:
    """Print a row per choice."""
    parser = arguments(__doc__)
    parser.add_argument("--only", nargs="*", choices=CHOICES, default=list(CHOICES), help="choices; by default all")
    options = parser.parse_args()
    found = bench(options, "test")
    found.print_head()
    for name in options.only:
        chosen = with_options(found.refiner, CHOICES[name])
        found.print_row(name, partial(refine, chosen, found.incoming, found.masks, range(len(found.masks))))


def with_options(trained: TrainedStage, changes: dict[str, object]) -> TrainedStage:
    """The same networks, drawing otherwise."""
    config = dataclasses.replace(trained.stage.config, **changes)  # type: ignore[attr-defined]
    return TrainedStage(type(trained.stage)(config, trained.stage.spec), trained.networks)  # type: ignore[call-arg]


def measured(image: Image, mask: Mask, judge: SegmenterJudge) -> Measured:
    """Everything that the table compares."""
    spec = judge.trained.stage.spec
    dice = compare_masks(judge.segment(image), mask, spec.num_labels, spec.spacing_mm).dice
    fidelity = measure_fidelity(image, [JudgeExtractor(judge)])
    return Measured(fidelity, measure_consistency(image, mask, spec.num_labels), float(np.nanmean(dice)))


def row(name: str, cases: Sequence[Measured], real: Sequence[Measured], seconds: float) -> str:
    """A line of the table; where one number stands in a cell, with its interval by the jackknife over cases.

    Resampled with repetition, as for the means of `medgen3d evaluate`, Gaussians would be fitted to copies of slices.
    """
    cells = [name]
    for statistic, digits in ((_fid, 2), (_dice, 3), (_intensity, 3)):
        value, others = statistic(cases, real), len(cases) - 1
        without = [statistic([*cases[:place], *cases[place + 1 :]], real) for place in range(len(cases))]
        error = 1.96 * float(np.std(without)) * others**0.5
        cells.append(f"{value:.{digits}f} ± {error:.{digits}f}")
    step, real_step = (np.mean([case.consistency.step for case in group], axis=0) for group in (cases, real))
    spectra = [np.mean([case.consistency.spectrum for case in group], axis=0) for group in (cases, real)]
    cells.append(" / ".join(f"{share:.2f}" for share in step / real_step))
    cells.append(" / ".join(f"{distance:.2f}" for distance in np.abs(spectra[0] - spectra[1]).mean(axis=1)))
    return "| " + " | ".join([*cells, f"{seconds:.1f}"]) + " |"


def _fid(cases: Sequence[Measured], real: Sequence[Measured]) -> float:
    groups = [[case.fidelity.features[0] for case in group] for group in (cases, real)]
    return float(np.mean([frechet_distance(*([case[view] for case in group] for group in groups)) for view in VIEWS]))


def _dice(cases: Sequence[Measured], _real: Sequence[Measured]) -> float:
    return float(np.mean([case.dice for case in cases]))


def _intensity(cases: Sequence[Measured], real: Sequence[Measured]) -> float:
    return histogram_distance(*([case.fidelity.histogram for case in group] for group in (cases, real)))


if __name__ == "__main__":
    main()
