"""Fidelity of images: distances of features and intensities between synthetic and real ones, and their diversity."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medgen3d.artifacts.plots import intensity_plot
from medgen3d.artifacts.report_parts import Metric, Picture, ReportSection
from medgen3d.evaluation.diversity import Thumbnail, similarities, thumbnail
from medgen3d.evaluation.extractors import KINDS, VIEWS, Extractor, ViewFeatures
from medgen3d.evaluation.feature_distances import Features, frechet_distance, kernel_distance
from medgen3d.evaluation.intensities import intensity, intensity_histogram
from medgen3d.evaluation.metrics import floored_metric
from medgen3d.evaluation.real_floor import against_floor, bootstrap_interval
from medgen3d.evaluation.section_result import SectionResult

INTENSITY_PLOT = "intensities.png"
_NUM_PLOTTED_BINS = 64  # integer intensities leave a comb in finer ones
Distance = Callable[[Sequence[Features], Sequence[Features]], float]

_MEASURES: dict[str, tuple[str, Distance]] = {
    "fid": ("FID", frechet_distance),
    "kid": ("KID", kernel_distance),
}


class CaseFidelity(NamedTuple):
    """Measures of one image.

    features: Per extractor, {view: float32 [n, C]}.
    histogram: float64 [bins], shares of the voxels.
    thumbnail: float16 [D, h, w] in [0, 1], small.
    """

    features: tuple[ViewFeatures, ...]
    histogram: NDArray[np.float64]
    thumbnail: Thumbnail


class ExtractorIdentity(NamedTuple):
    """The network that described the images.

    name: What the report calls it; a pretrained network is called by its kind.
    weights_sha256: Of its weights' file.
    """

    name: str
    weights_sha256: str


def measure_fidelity(image: NDArray[np.float32], extractors: Sequence[Extractor]) -> CaseFidelity:
    """Describe one image float32 [D, h, w] in [-1, 1].

    Args:
        image: The image.
        extractors: The judge's, and a pretrained one where there is one.
    """
    features = tuple(extractor.features(image) for extractor in extractors)
    return CaseFidelity(features, intensity_histogram(image), thumbnail(image))


def fidelity(
    real: Sequence[CaseFidelity],
    synthetic: Sequence[CaseFidelity],
    extractors: Sequence[ExtractorIdentity],
    rng: np.random.Generator,
) -> SectionResult:
    """The section "fidelity".

    Args:
        real: At least one case.
        synthetic: At least one case.
        extractors: In the order of `CaseFidelity.features`; none where there was none.
        rng: Draws groups, pairs and resamples.
    """
    metrics = []
    for place, identity in enumerate(extractors):
        of_real, of_synthetic = ([case.features[place] for case in cases] for cases in (real, synthetic))
        metrics += feature_metrics(of_real, of_synthetic, identity.name, rng)
    metrics.append(diversity_metric([case.thumbnail for case in real], [case.thumbnail for case in synthetic], rng))
    histograms = [[case.histogram for case in cases] for cases in (real, synthetic)]
    title = "Intensity histograms: 1-Wasserstein distance"
    found = intensity(histograms[0], histograms[1], rng)
    metrics.append(floored_metric("fidelity.intensity", title, found, unit="shares of the intensity range"))
    return SectionResult(
        section=ReportSection(
            name="fidelity", title="Fidelity", about=_about(extractors), metrics=metrics, pictures=[_PICTURE]
        ),
        pictures={INTENSITY_PLOT: intensity_plot(*[_plotted(group) for group in histograms])},
    )


def feature_metrics(
    real: Sequence[ViewFeatures],
    synthetic: Sequence[ViewFeatures],
    extractor: str,
    rng: np.random.Generator,
) -> list[Metric]:
    """FID and KID per view; groups are of whole cases, whose vectors are pooled.

    Args:
        real: {view: [n, C]} per case.
        synthetic: The same for the synthetic cases.
        extractor: Its name; the metrics of a pretrained one are named apart from the judge's.
        rng: Draws the groups.
    """
    suffix = "_pretrained" if extractor in KINDS else ""
    metrics = []
    for key, (short, distance) in _MEASURES.items():
        for view in VIEWS:
            name, title = f"fidelity.{key}{suffix}.{view}", f"{short}, {view}, {extractor}"
            of_real, of_synthetic = ([case[view] for case in cases] for cases in (real, synthetic))
            metrics.append(_feature_metric(name, title, of_real, of_synthetic, distance, rng))
    return metrics


def diversity_metric(real: Sequence[Thumbnail], synthetic: Sequence[Thumbnail], rng: np.random.Generator) -> Metric:
    """Mean MS-SSIM among synthetic cases, next to that among real ones."""
    name, title = "fidelity.ms_ssim", "MS-SSIM of random pairs of images"
    among_real, among_synthetic = similarities(real, rng), similarities(synthetic, rng)
    if not len(among_synthetic):
        return Metric(name=name, title=title, value=None, num=0, note="It needs two synthetic cases.")
    return Metric(
        name=name,
        title=title,
        value=float(among_synthetic.mean()),
        floor=float(among_real.mean()) if len(among_real) else None,
        interval=bootstrap_interval([among_synthetic.tolist()], np.mean, rng),
        num=len(among_synthetic),
        num_of="synthetic pairs",
        note="No distance: its floor is the same among real cases. A higher value means less varied images.",
    )


def _feature_metric(
    name: str,
    title: str,
    real: Sequence[Features],
    synthetic: Sequence[Features],
    distance: Distance,
    rng: np.random.Generator,
) -> Metric:
    if min(len(real) // 2, len(synthetic)) < 2:
        note = "It needs 4 real and 2 synthetic cases."
        return Metric(name=name, title=title, value=None, num=min(len(real) // 2, len(synthetic)), note=note)
    note = "0 is expected where nothing differs, of the floor as well." if distance is kernel_distance else ""
    return floored_metric(name, title, against_floor(real, synthetic, distance, rng), note=note)


def _about(extractors: Sequence[ExtractorIdentity]) -> str:
    named = " and ".join(f"{name} (weights SHA-256 {sha256})" for name, sha256 in extractors)
    distances = (
        f"FID and KID are distances between image features along each of the three axes, as described by {named}. FID "
        "grows as the number of cases falls, so only its floor tells what is large; KID does not. "
    )
    return (distances if extractors else "") + (
        "MS-SSIM is the mean similarity of pairs of images within a set: where it is higher than among real cases, the "
        "synthetic images are less varied. Intensities are compared between each volume's percentiles 0.5 and 99.5."
    )


_PICTURE = Picture(
    file=INTENSITY_PLOT,
    caption="Mean intensity histograms; every volume weighs the same.",
    alt="Mean intensity histograms of all real and of all synthetic cases.",
)


def _plotted(histograms: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.mean(histograms, axis=0).reshape(_NUM_PLOTTED_BINS, -1).sum(axis=1)
