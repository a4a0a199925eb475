"""Ways from the incoming volume to the refined one: which steps, which solver, which view first. One table.

    medgen3d pipeline export hippocampus --out exported
    python benchmarks/refiner_walks.py --bundles exported --real prepared --judge segmenter-bundle [--count 10]

Masks are of the validation split, so that what is chosen by this table can be measured on the test split by
`refinement.py`, whose columns these are. Reference are all cases of both splits.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from refinement import COLUMNS, measured, row
from torch import Tensor

from medgen3d.artifacts.bundle import read_bundle
from medgen3d.artifacts.examples import read_example
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.evaluation.judge import judge_of
from medgen3d_stages.arrays import Image, Mask
from medgen3d_stages.chain import TrainedStage, draw_images
from medgen3d_stages.diffusion.process import add_noise
from medgen3d_stages.diffusion.sampler import Denoising
from medgen3d_stages.diffusion.schedule import even_log_snr_steps
from medgen3d_stages.refiner.network import VIEWS
from medgen3d_stages.refiner.sampler import ORDER, RefineRequest, RefineRun

FIRST = 299


@dataclass(frozen=True)
class Walk:
    """One way. end: Last step; None: `count` steps evenly down to 0. left: Share of the last noise that is kept."""

    name: str
    solver: str
    views: tuple[str, ...] = VIEWS
    end: int | None = 34
    count: int = 3
    left: float = 0.0

    def steps(self, signal_kept: Tensor) -> list[int]:
        """Falling."""
        if self.end is None:
            return [FIRST - FIRST * place // (self.count - 1) for place in range(self.count)]
        return even_log_snr_steps(FIRST, self.end, self.count, signal_kept)


TURNED = tuple(VIEWS[view] for view in ORDER)
WALKS = [
    Walk("10 evenly down to 0, DDIM", "ddim", end=None, count=10),
    Walk("3 evenly down to 0, DDIM", "ddim", end=None),
    Walk("3 down to 34, DDIM", "ddim"),
    Walk("3 down to 34, DDIM, 40 % of the last noise left", "ddim", left=0.4),
    Walk("3 down to 34, DPM-Solver++", "dpm++"),
    Walk("3 down to 50, DPM-Solver++", "dpm++", end=50),
    Walk("3 down to 34, DPM-Solver++, coronal first: the product's", "dpm++", TURNED),
]


@torch.no_grad()
def refined(trained: TrainedStage, walk: Walk, image: Image, mask: Mask, seed: int) -> Image:
    """A volume after this walk."""
    stage, network = trained.stage, trained.networks["denoiser"].eval()
    generator, kept = torch.Generator().manual_seed(seed), stage.signal_kept  # type: ignore[attr-defined]
    run = RefineRun(RefineRequest(image=image, mask=mask), generator, stage.config, stage.spec, kept)  # type: ignore[attr-defined]
    clean, labels = torch.from_numpy(image.copy()), torch.from_numpy(mask.astype("int32"))
    noise, steps = torch.randn(clean.shape, generator=generator), walk.steps(kept)
    noisy = add_noise(clean[None], noise[None], torch.tensor([steps[0]]), kept)
    denoising = Denoising(noisy, steps, kept, walk.solver, [])  # type: ignore[arg-type]
    while not denoising.finished:
        before, step = denoising.noisy, denoising.step
        view = VIEWS.index(walk.views[denoising.place % len(VIEWS)])
        denoising.take(run.predict(network, before[0], labels, step, view)[None])  # type: ignore[arg-type]
    last = denoising.noisy + walk.left * (before - kept[steps[-1]].sqrt() * denoising.noisy)
    result: Image = last[0].clamp(-1, 1).numpy()
    return result


def main() -> None:
    """Print a row per walk."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, required=True, help="folder with a bundle per stage")
    parser.add_argument("--real", type=Path, required=True, help="the prepared set that the pipeline was trained on")
    parser.add_argument("--judge", type=Path, required=True, help="bundle of a segmenter trained on real pairs")
    parser.add_argument("--count", type=int, default=10, help="masks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    prepared = PreparedSet(options.real)
    ids = [*prepared.info.case_ids("validation"), *prepared.info.case_ids("test")]
    pairs = [read_example(prepared, case_id).cropped() for case_id in ids]
    judge = judge_of(read_bundle(options.judge), "judge")
    real = [measured(image, mask, judge) for image, mask in pairs]
    masks = [mask for _, mask in pairs[: options.count]]
    generator, refiner = (
        read_bundle(options.bundles / stage).trained_stage() for stage in ("image_sequence_generator", "refiner")
    )
    incoming = draw_images(generator, masks, range(len(masks)))
    print(f"{len(masks)} masks, {len(real)} real cases\n\n{COLUMNS}")
    print(row("real images of these masks", real[: options.count], real, 0.0))
    for walk in WALKS:
        since = time.process_time()
        images = [refined(refiner, walk, *pair, seed) for seed, pair in enumerate(zip(incoming, masks, strict=True))]
        seconds = (time.process_time() - since) / len(masks)
        cases = [measured(*pair, judge) for pair in zip(images, masks, strict=True)]
        print(row(walk.name, cases, real, seconds), flush=True)


if __name__ == "__main__":
    main()
