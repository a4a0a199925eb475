import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from medgen3d.artifacts.bundle import BundleDataset, BundleInfo, read_bundle, write_bundle
from medgen3d.artifacts.prepared_set import (
    CaseEntry,
    DatasetInfo,
    Intensity,
    PreparedSet,
    write_info,
)
from medgen3d.core.errors import ArtifactError, DataError


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


def test_a_bundle_is_four_files_and_its_hashes_are_those_of_the_files(tmp_path, write_toy_bundle):
    bundle = read_bundle(write_toy_bundle(tmp_path / "bundle"))
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in bundle.root.iterdir()}
    assert set(files) == {"config.json", "weights.safetensors", "provenance.json", "preview.png"}
    assert bundle.sha256() == files


def test_equal_bundles_have_equal_weight_files(tmp_path, write_toy_bundle):
    one, two = (read_bundle(write_toy_bundle(tmp_path / name)).sha256() for name in ("one", "two"))
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
    with pytest.raises(DataError, match="net/bias holds NaN or infinite weights"):
        write_bundle(old.root, old.info, {"net/bias": torch.tensor([1.0, np.inf])}, old.provenance, b"")
    assert read_bundle(old.root).sha256() == old.sha256()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_views_of_one_flat_buffer_can_be_written(tmp_path, write_toy_bundle):
    old = read_bundle(write_toy_bundle(tmp_path / "bundle"))
    flat = torch.arange(6.0)
    views = {"net/a": flat[:4].view(2, 2), "net/b": flat[2:], "net/c": flat.view(2, 3).T}
    write_bundle(old.root, old.info, views, old.provenance, b"")
    for name, tensor in load_file(old.root / "weights.safetensors").items():
        assert torch.equal(tensor, views[name])


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors", "provenance.json", "preview.png"])
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
    rest = {"intensity": {}, "inverse": Intensity(low=-5, high=5), "seed": 0, "patients_known": True, "cases": cases}
    write_info(tmp_path, DatasetInfo(**given, **rest))
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
