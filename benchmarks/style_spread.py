"""How wide styles should be drawn: a table by `image_sequence_generator.style_spread`, on masks of validation cases.

    medgen3d pipeline export builtin/hippocampus --out exported
    python benchmarks/style_spread.py --bundles exported --real prepared --judge segmenter-bundle [--count 20]

The columns are those of `refinement.py`, of which FID, Dice and intensity should stay; the images go through the whole
chain. Besides: MS-SSIM among the images (among the real ones first), and the share of images that come nearer to a
training image than 99 % of the cases that they are compared with do.
"""

from functools import partial

import numpy as np
from refinement import Bench, arguments, bench, with_options

from medgen3d.artifacts.bundle import read_bundle
from medgen3d.artifacts.examples import read_example
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.evaluation.diversity import similarities, thumbnail
from medgen3d.evaluation.novelty import near_copies
from medgen3d.measures.fingerprints import CaseFingerprint, describe_case, likeness
from medgen3d_stages.arrays import Image
from medgen3d_stages.chain import TrainedStage, draw_images, refine

SPREADS = (1.0, 1.25, 1.5, 1.75, 2.0)


def drawn(found: Bench, generator: TrainedStage, spread: float) -> list[Image]:
    """Refined images of this spread, the seeds the same for each."""
    numbers = range(len(found.masks))
    images = draw_images(with_options(generator, {"style_spread": spread}), found.masks, numbers)
    return refine(found.refiner, images, found.masks, numbers)


def ms_ssim(images: list[Image]) -> float:
    """Mean over pairs of images."""
    return float(similarities([thumbnail(image) for image in images], np.random.default_rng(0)).mean())


def closest(images: list[Image], masks: list[np.ndarray], train: list[CaseFingerprint]) -> np.ndarray:
    """Correlation of each image with the training image that is most like it."""
    described = [describe_case(*pair) for pair in zip(images, masks, strict=True)]
    return np.array([likeness(each, train).nearest(len(train)).image_correlation for each in described])


def main() -> None:
    """Print the rows of each spread, then the variety."""
    options = arguments(__doc__).parse_args()
    found, prepared = bench(options, "validation"), PreparedSet(options.real)
    generator = read_bundle(options.bundles / "image_sequence_generator").trained_stage()
    train, real = (
        [read_example(prepared, case_id).cropped() for case_id in prepared.info.case_ids(split)]
        for split in ("train", "validation")
    )
    known = [describe_case(*pair) for pair in train]
    of_real = closest([image for image, _ in real], [mask for _, mask in real], known)
    found.print_head()
    variety = [f"real: MS-SSIM {ms_ssim([image for image, _ in real]):.3f}"]
    for spread in SPREADS:
        images = found.print_row(f"spread {spread}", partial(drawn, found, generator, spread))
        near = near_copies(closest(images, found.masks, known), of_real).mean()
        variety.append(f"spread {spread}: MS-SSIM {ms_ssim(images):.3f}, near a training image {near:.1%}")
    print("\n" + "\n".join(variety))


if __name__ == "__main__":
    main()
