import json
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from medgen3d.artifacts.bundle import BundleDataset, BundleInfo, read_bundle, write_bundle
from medgen3d.artifacts.bundle_weights import named_weights
from medgen3d.artifacts.case_file import write_case_file
from medgen3d.artifacts.intensity import Intensity
from medgen3d.artifacts.prepared_set import CaseEntry, DatasetInfo, PreparedSet, case_path, write_info
from medgen3d.core.errors import ArtifactError, DataError
from medgen3d.core.hashing import sha256_of
from medgen3d_stages.catalogue import STAGE_NAMES, config_type, make_stage
from medgen3d_stages.contract import DataSpec


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_was_written_is_read_back(tmp_path, write_toy_bundle):
    bundle = read_bundle(write_toy_bundle(tmp_path / "bundle", "refiner", seed=4))
    assert (bundle.info.stage, bundle.info.spec["plane"], bundle.info.dataset.plane) == ("refiner", [16, 8], (16, 8))
    assert bundle.info.dataset.labels == {0: "background", 3: "node"}
    assert BundleInfo(**bundle.info.model_dump() | {"spec": bundle.info.spec | {"plane": (16, 8)}}) == bundle.info
    assert bundle.info.dataset.label_table.original_ids == (0, 3)
    assert bundle.info.dataset.inverse == Intensity(low=0, high=100)
    assert bundle.provenance.seed == 4
    numbers = torch.Generator().manual_seed(4)
    weights = load_file(bundle.root / "weights.safetensors")
    assert torch.equal(weights["net/weight"], torch.randn(3, 2, generator=numbers))


def hashes(root: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in root.iterdir()}


def test_a_bundle_is_four_files(tmp_path, write_toy_bundle):
    files = hashes(write_toy_bundle(tmp_path / "bundle"))
    assert set(files) == {"config.json", "weights.safetensors", "provenance.json", "preview.png"}


def test_equal_bundles_have_equal_weight_files(tmp_path, write_toy_bundle):
    one, two = (hashes(write_toy_bundle(tmp_path / name)) for name in ("one", "two"))
    assert one["weights.safetensors"] == two["weights.safetensors"]
    assert one["config.json"] == two["config.json"]


def test_a_bundle_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path, write_toy_bundle):
    write_toy_bundle(tmp_path / "bundle", seed=1)
    write_toy_bundle(tmp_path / "bundle", seed=2)
    assert read_bundle(tmp_path / "bundle").provenance.seed == 2
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path, write_toy_bundle):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(ArtifactError, match="found a folder that is no bundle"):
        write_toy_bundle(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_weights_of_a_training_that_diverged_are_refused_and_the_old_bundle_stays(tmp_path, write_toy_bundle):
    old = read_bundle(write_toy_bundle(tmp_path / "bundle"))
    before = hashes(old.root)
    with pytest.raises(DataError, match="net/bias holds NaN or infinite weights"):
        write_bundle(old.root, old.info, {"net/bias": torch.tensor([1.0, np.inf])}, old.provenance, b"")
    assert hashes(old.root) == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_views_of_one_flat_buffer_can_be_written(tmp_path, write_toy_bundle):
    old = read_bundle(write_toy_bundle(tmp_path / "bundle"))
    flat = torch.arange(6.0)
    views = {"net/a": flat[:4].view(2, 2), "net/b": flat[2:], "net/c": flat.view(2, 3).T}
    write_bundle(old.root, old.info, views, old.provenance, b"")
    for name, tensor in load_file(old.root / "weights.safetensors").items():
        assert torch.equal(tensor, views[name])


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors", "provenance.json"])
def test_a_missing_file_is_named(tmp_path, write_toy_bundle, name):
    root = write_toy_bundle(tmp_path / "bundle")
    (root / name).unlink()
    with pytest.raises(ArtifactError, match=f"found no {name}"):
        read_bundle(root)


@pytest.mark.parametrize("name", ["config.json", "provenance.json"])
def test_another_schema_version_is_refused_before_anything_else(tmp_path, write_toy_bundle, name):
    root = write_toy_bundle(tmp_path / "bundle")
    edit(root / name, schema_version=2, unheard_of=1)
    with pytest.raises(ArtifactError, match=rf"{name}: found schema version 2, expected version 1\."):
        read_bundle(root)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unheard_of": 1}, "unheard_of: Extra inputs are not permitted"),
        ({"stage": 3}, "stage: Input should be a valid string"),
        ({"dataset": {"name": "toy"}}, "dataset.modality: Field required"),
    ],
)
def test_a_wrong_field_of_the_config_is_named(tmp_path, write_toy_bundle, changes, message):
    root = write_toy_bundle(tmp_path / "bundle")
    edit(root / "config.json", **changes)
    with pytest.raises(ArtifactError, match=message):
        read_bundle(root)


def test_a_file_that_is_no_json_is_one_sentence(tmp_path, write_toy_bundle):
    root = write_toy_bundle(tmp_path / "bundle")
    (root / "provenance.json").write_bytes(b"\xff{")
    with pytest.raises(ArtifactError, match=r"provenance.json: found .* expected a readable JSON file"):
        read_bundle(root)


@pytest.mark.parametrize(("field", "value"), [("num_labels", 3), ("plane", [16, 16]), ("spacing_mm", [2.0, 1.0, 1.5])])
def test_a_spec_that_contradicts_the_dataset_is_refused(tmp_path, write_toy_bundle, field, value):
    root = write_toy_bundle(tmp_path / "bundle")
    edit(root / "config.json", spec=read_bundle(root).info.spec | {field: value})
    with pytest.raises(ArtifactError, match=f"spec.{field} is"):
        read_bundle(root)


def test_the_dataset_of_a_bundle_comes_from_the_training_split_alone(tmp_path):
    entry = {"patient": "p", "sources_sha256": {}}
    cases = [
        CaseEntry(case_id=str(index), split=split, shape=shape, **entry)
        for index, (split, shape) in enumerate(
            [("train", (9, 8, 7)), ("test", (50, 8, 8)), ("train", (6, 8, 8)), ("train", (9, 8, 7))]
        )
    ]
    given = {"name": "toy", "modality": "CT", "labels": {2: "liver"}, "spacing_mm": (5, 1, 1), "plane": (8, 8)}
    rule = {"kind": "hu_window", "low": -5, "high": 5}
    rest = {"intensity": rule, "inverse": Intensity(low=-5, high=5), "seed": 0, "patients_known": True, "cases": cases}
    write_info(tmp_path, DatasetInfo(**given, **rest))
    for number, case in enumerate(cases):
        facts = {"case_id": case.case_id}
        write_case_file(case_path(tmp_path, number), np.zeros(case.shape), np.zeros(case.shape, np.uint8), facts)
    prepared = PreparedSet(tmp_path)
    dataset = BundleDataset.of(prepared)
    assert dataset.shapes == [(6, 8, 8, 1), (9, 8, 7, 2)]
    assert dataset.labels == {0: "background", 2: "liver"}
    assert dataset.digest == prepared.digest


def test_reading_a_bundle_loads_no_torch(tmp_path, write_toy_bundle):
    root = write_toy_bundle(tmp_path / "bundle")
    code = (
        "import sys, pathlib; from medgen3d.artifacts.bundle import read_bundle; "
        f"read_bundle(pathlib.Path({str(root)!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


_DIFFUSION = {"channels": [8, 8], "attention_levels": [False, False]}
_TINY = {
    "mask_generator": _DIFFUSION,
    "image_sequence_generator": {"channels": [8, 8]},
    "refiner": _DIFFUSION,
    "segmenter": {"channels": 8, "num_res_blocks": [1, 1]},
}


@pytest.fixture
def write_trained(tmp_path, write_toy_bundle) -> Callable[..., Path]:
    """write_trained(stage, **fields of the info): a bundle with a tiny stage's fresh weights."""

    def write(name: str = "mask_generator", **changes: object) -> Path:
        info = read_bundle(write_toy_bundle(tmp_path / "toy", name)).info
        config = _TINY[name]
        stage = make_stage(name, config_type(name)(**config), DataSpec(**info.spec))
        networks = stage.build()
        weights = named_weights({name: networks[name] for name in stage.sampled})
        info = info.model_copy(update={"stage_config": config} | changes)
        write_bundle(tmp_path / "trained", info, weights, read_bundle(tmp_path / "toy").provenance, b"")
        return tmp_path / "trained"

    return write


@pytest.mark.parametrize("stage", STAGE_NAMES)
def test_a_trained_stage_has_the_written_weights_and_no_more_than_the_sampled_networks(write_trained, stage):
    root = write_trained(stage)
    trained = read_bundle(root).trained_stage()
    assert trained.stage.name == stage
    assert tuple(trained.networks) == trained.stage.sampled
    written = load_file(root / "weights.safetensors")
    for name, network in trained.networks.items():
        for key, value in network.state_dict().items():
            assert torch.equal(value, written.pop(f"{name}/{key}"))
    assert not written
    for network in trained.networks.values():
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())


def test_reading_a_trained_stage_leaves_the_callers_random_stream_alone(write_trained):
    bundle = read_bundle(write_trained())
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    bundle.trained_stage()
    assert torch.equal(torch.rand(3), expected)


def lose_one(tensors: dict[str, torch.Tensor], name: str) -> None:
    del tensors[name]


def add_one(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[f"{name}_more"] = torch.ones(2)


def reshape_one(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name] = torch.ones(3, 7)


def widen_one(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name] = tensors[name].double()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lose_one, "found no tensor {name}, expected one by that name."),
        (add_one, "found an unknown tensor {name}_more, expected none by that name."),
        (reshape_one, "found shape [3, 7] of tensor {name}, expected shape {shape}."),
        (widen_one, "found dtype torch.float64 of tensor {name}, expected dtype torch.float32."),
    ],
)
def test_a_tensor_that_does_not_fit_the_networks_is_named(write_trained, change, message):
    root = write_trained()
    tensors = load_file(root / "weights.safetensors")
    name = max(tensors)
    sentence = message.format(name=name, shape=list(tensors[name].shape))
    change(tensors, name)
    save_file(tensors, root / "weights.safetensors")
    with pytest.raises(ArtifactError) as caught:
        read_bundle(root).trained_stage()
    assert sentence in str(caught.value)


def cut_short(content: bytes) -> bytes:
    return content[:-1]


def append(content: bytes) -> bytes:
    return content + b"\0"


def claim_a_huge_header(content: bytes) -> bytes:
    return struct.pack("<Q", 2**62) + content[8:]


def claim_huge_tensors(content: bytes) -> bytes:
    header = json.dumps({"net/a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    return struct.pack("<Q", len(header)) + header


def turn_into_a_pickle(content: bytes) -> bytes:
    return pickle.dumps({"weights": [1.0]})


@pytest.mark.parametrize("damage", [cut_short, append, claim_a_huge_header, claim_huge_tensors, turn_into_a_pickle])
def test_a_damaged_weights_file_is_one_sentence(write_trained, damage):
    path = write_trained() / "weights.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ArtifactError, match=r"weights.safetensors: found an unreadable file .* expected safetensors"):
        read_bundle(path.parent).trained_stage()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": "painter"}, "found stage 'painter', expected one of ('mask_generator',"),
        ({"stage_config": {"windw": 8}}, "found an unknown field stage_config.windw"),
        ({"stage_config": {"window": "many"}}, "stage_config.window: Input should be a valid integer"),
        ({"stage_config": {"window": 4, "overlap": 4}}, "overlap must lie between 1 and window - 1 = 3 slices, got 4"),
    ],
)
def test_a_config_that_the_stage_refuses_is_named(write_trained, changes, message):
    root = write_trained(**changes)
    with pytest.raises(ArtifactError) as caught:
        read_bundle(root).trained_stage()
    assert message in str(caught.value)


def test_a_config_is_the_one_that_was_trained_with_tuples_included(write_trained):
    config = read_bundle(write_trained("refiner")).trained_stage().stage.config
    assert config == config_type("refiner")(channels=(8, 8), attention_levels=(False, False))


def test_intensities_return_to_scanner_units_and_labels_to_their_own_ids(tiny_pipeline):
    dataset = read_bundle(tiny_pipeline["refiner"]).info.dataset  # -1 is -100, +1 is 300; labels 0, 7, 300
    image, mask = dataset.as_volumes(np.array([[[-1.0, 0.0, 1.0]]], np.float32), np.array([[[0, 1, 2]]], np.uint8))

    assert image.voxels[0, 0].tolist() == [-100, 100, 300]
    assert mask.voxels[0, 0].tolist() == [0, 7, 300]
    assert image.spacing_mm == pytest.approx((3.0, 0.5, 0.75))
    np.testing.assert_array_equal(image.affine[:3, 3], 0)
