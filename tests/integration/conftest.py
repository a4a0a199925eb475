"""What several modules share: small prepared heads, real cases that pass for drawn ones, a browser."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from medgen3d.artifacts.bundle import BundleDataset, read_bundle
from medgen3d.artifacts.manifest import SyntheticSetInfo
from medgen3d.artifacts.pipeline import PinnedBundle, Pipeline, PipelineInfo
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.synthetic_set import merge_parts, open_for_writing, write_case, write_part
from medgen3d.config.load import load_config
from medgen3d.core.volume import Volume, affine_from_spacing
from medgen3d.ingest.on_ray import ingest
from medgen3d.ingest.phantom import write_phantoms


@pytest.fixture(scope="session")
def prepared_heads(ray_cluster, tmp_path_factory) -> PreparedSet:
    """Twelve phantoms of 8 x 16 x 16 voxels."""
    root = tmp_path_factory.mktemp("heads")
    write_phantoms("brain_mr", 12, 0, root / "phantoms", size=(8, 16, 16))
    ingest(root / "phantoms", root / "prepared", load_config(presets=["smoke"]).ingest, seed=0, name="heads")
    return PreparedSet(root / "prepared")


@pytest.fixture(scope="session")
def copy_as_pairs() -> Callable[[PreparedSet, Sequence[str], Path], None]:
    """copy_as_pairs(prepared, case_ids, out): cases as a synthetic set, as if a generator had drawn them elsewhere."""
    return _copy_as_pairs


def _copy_as_pairs(prepared: PreparedSet, case_ids: Sequence[str], out: Path) -> None:
    common = BundleDataset.of(prepared).model_dump(
        include={"modality", "phantom", "labels", "spacing_mm", "axis_codes", "image_dtype"}
    )
    info = SyntheticSetInfo(
        dataset_name="heads",
        dataset_digest=prepared.digest,
        pipeline_name="heads",
        pipeline_version=7,
        seed=1,
        config_hash="c" * 64,
        weights_sha256={"refiner": "f" * 64},
        batch=1,
        threads=1,
        device="cpu",
        **common,
    )
    open_for_writing(out, info)
    rows = []
    for number, case_id in enumerate(case_ids):
        case = prepared.read(case_id)
        inside = (slice(None), case.box.rows, case.box.columns)
        affine = affine_from_spacing(info.spacing_mm)
        image = Volume(voxels=case.intensity.from_unit(case.image[inside]), affine=affine)
        mask = Volume(voxels=info.label_table.to_original(case.mask[inside]), affine=affine)
        rows.append(write_case(out, info, case_id=f"syn_{number:05d}", number=number, image=image, mask=mask))
    write_part(out, info, 0, rows)
    merge_parts(out)


@pytest.fixture(scope="session")
def tiny_as_pipeline(tiny_pipeline) -> Callable[[str], Pipeline]:
    """tiny_as_pipeline(name): the small random networks, resolved as version 3 of a pipeline."""
    pin = PinnedBundle(model="knee.stage", version=1, weights_sha256="0" * 64, dataset_digest="d" * 64)
    facts = {"modality", "phantom", "labels", "spacing_mm", "plane"}
    info = PipelineInfo(
        dataset="knee",
        stages=dict.fromkeys(tiny_pipeline, pin),
        **read_bundle(tiny_pipeline["refiner"]).info.dataset.model_dump(include=facts),
    )
    return lambda name: Pipeline(name=name, version=3, notice="", info=info, bundles=tiny_pipeline)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless Chromium. It has an event loop of its own, so it ends with the module."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium on this machine (Debian's package is called chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()
