from pathlib import Path

import pytest

from medgen3d.artifacts.bundle import read_bundle
from medgen3d.artifacts.pipeline import Pipeline
from medgen3d.serving.inference.pipeline_catalog import ServedPipeline, describe


@pytest.fixture(scope="session")
def pipeline_of(tiny_pipeline):
    """pipeline_of(version): the tiny pipeline as the registry would resolve it."""

    def resolved(version: int = 3) -> Pipeline:
        return Pipeline(name="knee", version=version, notice="", info=None, bundles=dict(tiny_pipeline))

    return resolved


@pytest.fixture(scope="session")
def knee(pipeline_of) -> ServedPipeline:
    """The tiny pipeline as an engine describes it: spacing (3, 0.5, 0.75), plane (16, 24), at most 9 slices."""
    return describe(pipeline_of(), "knee@3", batch=4, threads=1, device="cpu")


@pytest.fixture(scope="session")
def stages(tiny_pipeline: dict[str, Path]):
    return {stage: read_bundle(root).trained_stage() for stage, root in tiny_pipeline.items()}
