import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from medgen3d.artifacts.bundle import FILES, read_bundle
from medgen3d.artifacts.pipeline import PinnedBundle, Pipeline, PipelineInfo, read_portable, write_portable
from medgen3d.config.experiment import CHAIN
from medgen3d.core.errors import ArtifactError, DataError
from medgen3d.core.hashing import sha256_of


@pytest.fixture
def toy(tmp_path, write_toy_bundle) -> Pipeline:
    """Version 3 of a pipeline of three toy bundles."""
    bundles = {stage: write_toy_bundle(tmp_path / "registered" / stage, stage, seed=1) for stage in CHAIN}
    pins = {
        stage: PinnedBundle(
            model=f"toy.{stage}",
            version=2,
            weights_sha256=sha256_of(root / "weights.safetensors"),
            dataset_digest="d" * 64,
        )
        for stage, root in bundles.items()
    }
    labels = {0: "background", 3: "node"}
    facts = {"dataset": "toy", "modality": "MR", "phantom": True, "labels": labels, "plane": (16, 8)}
    info = PipelineInfo(**facts, spacing_mm=(2.0, 1.0, 1.0), stages=pins)
    return Pipeline(name="toy", version=3, notice="", info=info, bundles=bundles)


def replace_weights(toy, stage, tensors) -> None:
    save_file(tensors, toy.bundles[stage] / "weights.safetensors")


def test_a_pipeline_in_full_precision_comes_back_as_it_was(toy, tmp_path):
    write_portable(tmp_path / "out", toy, half=False)
    found = read_portable(tmp_path / "out", "toy again")

    assert (found.name, found.version, found.notice) == ("toy again", 3, "")
    assert found.info.model_dump(include=set(PipelineInfo.model_fields)) == toy.info.model_dump()
    for stage in CHAIN:
        for name in FILES:
            assert (found.bundles[stage] / name).read_bytes() == (toy.bundles[stage] / name).read_bytes()


def test_halved_weights_have_half_the_bits_and_err_by_no_more_than_rounding_explains(toy, tmp_path):
    # float16 has 11 significant bits, so rounding moves a value by at most 2^-11 of itself, and by half of the smallest
    # step, 2^-24, where it is smaller than 2^-14.
    rng = np.random.default_rng(0)
    exact = torch.from_numpy((rng.normal(size=20000) * 10.0 ** rng.uniform(-9, 4, 20000)).astype(np.float32))
    replace_weights(toy, "refiner", {"net/weight": exact, "net/count": torch.tensor(70000)})
    written = write_portable(tmp_path / "out", toy, half=True)
    found = load_file(tmp_path / "out" / "refiner" / "weights.safetensors")

    assert found["net/weight"].dtype == torch.float16
    assert found["net/count"] == 70000  # no weight, and no float
    error = (found["net/weight"].double() - exact.double()).abs()
    assert (error <= torch.clamp(exact.double().abs() * 2**-11, min=2**-25)).all()
    assert error.max() > 0
    assert written.stages["refiner"].weights_sha256 == sha256_of(tmp_path / "out" / "refiner" / "weights.safetensors")
    assert written.stages["refiner"].weights_sha256 != toy.info.stages["refiner"].weights_sha256


def test_a_weight_beyond_the_range_of_half_precision_is_refused_by_name(toy, tmp_path):
    replace_weights(toy, "refiner", {"net/weight": torch.tensor([1.0, -65504.0])})
    write_portable(tmp_path / "largest", toy, half=True)
    replace_weights(toy, "refiner", {"net/weight": torch.tensor([1.0, -65505.0])})
    with pytest.raises(
        DataError, match=r"refiner: net/weight holds the weight 65505, .* ends at 65504\. Export without"
    ):
        write_portable(tmp_path / "out", toy, half=True)
    write_portable(tmp_path / "out", toy, half=False)


def test_a_stage_with_halved_weights_is_read_in_single_precision(tiny_pipeline, toy, tmp_path):
    knee = Pipeline(name="knee", version=1, notice="", info=toy.info, bundles=tiny_pipeline)
    write_portable(tmp_path / "out", knee, half=True)
    for stage in CHAIN:
        before = read_bundle(tiny_pipeline[stage]).trained_stage().networks
        after = read_bundle(tmp_path / "out" / stage).trained_stage().networks
        for name, network in before.items():
            for key, value in network.state_dict().items():
                loaded = after[name].state_dict()[key]
                assert loaded.dtype == value.dtype
                torch.testing.assert_close(loaded, value, rtol=2**-11, atol=2**-25)


@pytest.mark.parametrize("file", [f"refiner/{name}" for name in FILES])
def test_any_file_that_was_changed_or_lost_is_noticed(toy, tmp_path, file):
    write_portable(tmp_path / "out", toy, half=True)
    path = tmp_path / "out" / file
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ArtifactError, match=rf"{file}: found SHA-256 .* of pipeline\.json"):
        read_portable(tmp_path / "out", "toy")
    path.unlink()
    with pytest.raises(ArtifactError, match=rf"{file}: found no such file"):
        read_portable(tmp_path / "out", "toy")


def test_an_export_replaces_an_older_one_and_keeps_its_card(toy, tmp_path):
    out = tmp_path / "out"
    write_portable(out, toy, half=False)
    (out / "card.md").write_text("a card")
    write_portable(out, toy, half=True)

    assert (out / "card.md").read_text() == "a card"
    assert (
        load_file(read_portable(out, "toy").bundles["refiner"] / "weights.safetensors")["net/scale"].dtype
        == torch.float16
    )


def test_a_folder_of_somebody_else_is_refused(toy, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match=r"holds mine\.txt, which is no part of a pipeline"):
        write_portable(tmp_path, toy, half=False)


def test_a_folder_of_another_schema_version_is_refused(toy, tmp_path):
    write_portable(tmp_path / "out", toy, half=False)
    path = tmp_path / "out" / "pipeline.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 2}))
    with pytest.raises(ArtifactError, match="found schema version 2, expected version 1"):
        read_portable(tmp_path / "out", "toy")


def test_previews_stay_behind_since_they_may_show_a_real_case(toy, tmp_path):
    write_portable(tmp_path / "out", toy, half=True)
    assert (toy.bundles["refiner"] / "preview.png").is_file()
    assert not list((tmp_path / "out").rglob("*.png"))
