"""Bulk synthesis on a real local cluster, with small untrained networks: what matters here is not how cases look."""

import json
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.synthetic_set import SyntheticSet
from medgen3d.config.experiment import CHAIN, IngestConfig, SynthesisConfig
from medgen3d.core.errors import DataError
from medgen3d.core.hashing import sha256_of
from medgen3d.ingest.on_ray import ingest
from medgen3d.synthesis.on_ray import WRITTEN, synthesize
from medgen3d.synthesis.run_options import RunOptions

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("ray_cluster")]  # a busy machine starts slowly
ONE = SynthesisConfig(batch=2, cpus_per_actor=0.25)
TWO = SynthesisConfig(batch=2, cpus_per_actor=0.25, num_actors=dict.fromkeys(CHAIN, 2))


def hashes(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): sha256_of(path) for path in sorted(root.glob("*/*.nii.gz"))}


@pytest.fixture(scope="module")
def knee(tiny_as_pipeline):
    return tiny_as_pipeline("knee")


@pytest.fixture(scope="module")
def five(knee, tmp_path_factory):
    """Cases 0 to 4 and the progress that was reported."""
    out, seen = tmp_path_factory.mktemp("five") / "set", []
    summary = synthesize(knee, 5, 11, out, ONE, lambda done, total, _: seen.append((dict(done), total)))
    return out, summary, seen


def test_pairs_lie_on_one_grid_in_the_training_datas_orientation_spacing_and_labels(five):
    out, summary, _ = five
    found = SyntheticSet(out)

    assert (summary.num_drawn, summary.num_kept, summary.failures) == (5, 0, {})
    assert found.case_ids == [f"syn_{number:05d}" for number in range(5)]
    for case_id in found.case_ids:
        image, mask = (nib.load(out / folder / f"{case_id}.nii.gz") for folder in ("images", "labels"))
        np.testing.assert_array_equal(image.affine, mask.affine)
        assert image.shape == mask.shape == found.rows[case_id].shape[::-1]
        assert image.header.get_zooms() == pytest.approx((0.75, 0.5, 3.0))
        assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
        assert image.get_data_dtype() == np.int16
        assert set(np.unique(mask.dataobj)) <= {0, 7, 300}
    assert json.loads((out / "dataset.json").read_text())["numTraining"] == 5


def test_progress_is_told_for_every_stage_up_to_the_end(five):
    _, _, seen = five
    assert seen[-1] == (dict.fromkeys((*CHAIN, WRITTEN), 5), 5)


def test_the_set_can_be_ingested_like_any_other_and_its_masks_come_back(five, tmp_path):
    ingest(five[0], tmp_path / "prepared", IngestConfig(), seed=0)
    prepared, synthetic = PreparedSet(tmp_path / "prepared"), SyntheticSet(five[0])

    assert prepared.info.label_table == synthetic.info.label_table
    assert prepared.info.spacing_mm == pytest.approx(synthetic.info.spacing_mm)
    assert prepared.info.axis_codes == "LPS"
    assert prepared.info.phantom
    assert sorted(prepared.info.case_ids()) == synthetic.case_ids
    for case_id in synthetic.case_ids:
        case = prepared.read(case_id)
        mask = prepared.info.label_table.to_original(case.mask[:, case.box.rows, case.box.columns])
        np.testing.assert_array_equal(mask, synthetic.read(case_id)[1].voxels)


def test_an_interrupted_set_is_completed_with_the_same_bytes_by_two_actors_per_stage(five, knee, tmp_path):
    out = tmp_path / "set"
    shutil.copytree(five[0], out)
    (out / "images" / "syn_00001.nii.gz").write_bytes(b"half")
    for number in (2, 4):
        (out / "labels" / f"syn_0000{number}.nii.gz").unlink()
    summary = synthesize(knee, 5, 11, out, TWO)

    assert (summary.num_kept, summary.num_drawn) == (2, 3)
    assert hashes(out) == hashes(five[0])
    assert len(SyntheticSet(out).rows) == 5


def test_an_actor_that_dies_is_replaced_and_the_set_is_the_same(five, knee, tmp_path, ray_processes):
    def kill_the_refiner() -> None:
        while not (found := ray_processes("RefinerActor")):
            time.sleep(0.05)
        found[0].kill()

    killer = threading.Thread(target=kill_the_refiner, daemon=True)
    killer.start()
    summary = synthesize(knee, 5, 11, tmp_path / "set", ONE)
    killer.join()

    assert (summary.num_drawn, summary.failures) == (5, {})
    assert hashes(tmp_path / "set") == hashes(five[0])


def test_images_for_the_masks_of_a_set_are_those_that_were_drawn_with_them(five, knee, tmp_path):
    # Stages 2 and 3 draw from streams of their own, so it makes no difference where the mask comes from.
    seen = []
    synthesize(
        knee,
        4,
        11,
        tmp_path / "set",
        ONE,
        lambda done, *_: seen.append(dict(done)),
        RunOptions(masks=five[0]),
    )

    expected = {name: digest for name, digest in hashes(five[0]).items() if name[-12:-7] < "00004"}
    assert hashes(tmp_path / "set") == expected
    assert len(expected) == 8
    assert seen[-1] == dict.fromkeys(("image_sequence_generator", "refiner", WRITTEN), 4)


def test_sampling_options_and_a_missing_refiner_change_the_images_and_never_the_masks(five, knee, tmp_path):
    unrefined = ONE.model_copy(update={"refine": False})
    synthesize(knee, 2, 11, tmp_path / "late", ONE, options=RunOptions(sampling={"refiner": {"start": 0.9}}))
    synthesize(knee, 2, 11, tmp_path / "never", unrefined)

    for number in range(2):
        roots = (five[0], tmp_path / "late", tmp_path / "never")
        assert len({sha256_of(root / "labels" / f"syn_{number:05d}.nii.gz") for root in roots}) == 1
        assert len({sha256_of(root / "images" / f"syn_{number:05d}.nii.gz") for root in roots}) == 3
    assert SyntheticSet(tmp_path / "late").info.sampling == {"refiner": {"start": 0.9}}
    assert not SyntheticSet(tmp_path / "never").info.refined


def test_a_prepared_set_whose_masks_cannot_be_read_ends_the_run_with_one_sentence(five, knee, tmp_path):
    ingest(five[0], tmp_path / "prepared", IngestConfig(spacing_mm=(3.0, 0.5, 0.75)), seed=0)
    (tmp_path / "prepared" / "cases" / "000000.arrow").write_bytes(b"half")
    with pytest.raises(DataError, match=r"000000\.arrow: found .* Run ingest again") as caught:
        synthesize(
            knee,
            2,
            11,
            tmp_path / "set",
            ONE,
            options=RunOptions(masks=tmp_path / "prepared", split="train"),
        )
    assert "Traceback" not in str(caught.value)


def test_a_bundle_with_damaged_weights_ends_the_run_with_one_sentence(knee, tmp_path):
    shutil.copytree(knee.bundles["refiner"], tmp_path / "refiner")
    (tmp_path / "refiner" / "weights.safetensors").write_bytes(b"not weights")
    broken = replace(knee, bundles=knee.bundles | {"refiner": tmp_path / "refiner"})
    with pytest.raises(DataError, match=r"refiner/weights\.safetensors: found .* expected") as caught:
        synthesize(broken, 2, 11, tmp_path / "set", ONE)
    assert "Traceback" not in str(caught.value)


def test_nothing_is_written_by_a_dry_run(knee, tmp_path):
    summary = synthesize(knee, 5, 11, tmp_path / "set", ONE, dry_run=True)

    assert summary.num_drawn == 5
    assert not (tmp_path / "set").exists()
