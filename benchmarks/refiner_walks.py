"""Ways from the incoming volume to the refined one: which steps, which solver, which view first. One table.

    medgen3d pipeline export hippocampus --out exported
    python benchmarks/refiner_walks.py --bundles exported --real prepared --judge segmenter-bundle [--count 10]

Masks are of the validation split, so that what is chosen by this table can be measured on the test split by
`refinement.py`, whose columns these are. Reference are all cases of both splits.
"""

from dataclasses import dataclass
from functools import partial

import torch
from refinement import Bench, arguments, bench
from torch import Tensor

from medgen3d_stages.arrays import Image, Mask
from medgen3d_stages.chain import TrainedStage
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


def all_refined(found: Bench, walk: Walk) -> list[Image]:
    """Every incoming image after this walk, each from a seed of its own."""
    pairs = zip(found.incoming, found.masks, strict=True)
    return [refined(found.refiner, walk, *pair, seed) for seed, pair in enumerate(pairs)]


def main() -> None:
    """Print a row per walk."""
    found = bench(arguments(__doc__).parse_args(), "validation", "test")
    found.print_head()
    for walk in WALKS:
        found.print_row(walk.name, partial(all_refined, found, walk))


if __name__ == "__main__":
    main()
