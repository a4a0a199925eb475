"""The first step of the demo, with an untrained stand-in for the pipeline that ships."""

import pytest
from PIL import Image

from medgen3d.artifacts.bundle import read_bundle
from medgen3d.artifacts.pipeline import PinnedBundle, Pipeline, PipelineInfo, write_portable
from medgen3d.artifacts.synthetic_set import SyntheticSet
from medgen3d.recipes.demo import STEPS, Demo, plan_demo


@pytest.fixture
def demo(ray_cluster, tiny_pipeline, tmp_path) -> Demo:
    pin = PinnedBundle(model="knee.stage", version=1, weights_sha256="0" * 64, dataset_digest="d" * 64)
    facts = read_bundle(tiny_pipeline["refiner"]).info.dataset.model_dump(
        include={"modality", "phantom", "labels", "spacing_mm", "plane"}
    )
    info = PipelineInfo(dataset="knee", stages=dict.fromkeys(tiny_pipeline, pin), **facts)
    pipeline = Pipeline(name="knee", version=2, notice="", info=info, bundles=tiny_pipeline)
    write_portable(tmp_path / "builtin" / "hippocampus", pipeline, half=True)
    planned = plan_demo(tmp_path / "demo", ["synthesis.cpus_per_actor=0.25"])
    (tmp_path / "demo").mkdir()
    return Demo(out=planned.out, config=planned.config, builtin=tmp_path / "builtin")


@pytest.mark.soak
def test_the_demo_begins_with_two_pairs_of_the_built_in_pipeline_and_a_picture_of_them_which_a_repetition_keeps(demo):
    first = next(iter(STEPS.values()))
    seen = []
    said = first(demo, lambda *what: seen.append(what[:3]))
    pairs = SyntheticSet(demo.out / "hippocampus")

    assert len(pairs.case_ids) == 2
    assert (pairs.info.pipeline_name, pairs.info.pipeline_version) == ("builtin/hippocampus", 2)
    assert ("written", 2, 2) in seen
    assert said.endswith(str(demo.picture))
    assert min(Image.open(demo.picture).size) > 400
    assert {path.name for path in demo.out.iterdir()} == {"hippocampus", "hippocampus.png"}  # no registry is made

    image = demo.out / "hippocampus" / "images" / "syn_00000.nii.gz"
    before = image.stat().st_mtime_ns
    first(demo, lambda *_: None)
    assert image.stat().st_mtime_ns == before
