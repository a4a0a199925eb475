"""Bulk synthesis with plans, gates and an object store, on a real local cluster with small untrained networks."""

import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from pyarrow.fs import FileSystem
from typer.testing import CliRunner

from medgen3d.artifacts import nifti
from medgen3d.artifacts.bundle import read_bundle
from medgen3d.artifacts.run_status import RunStatus
from medgen3d.artifacts.storage import Folder
from medgen3d.artifacts.synthetic_set import SyntheticSet, damages
from medgen3d.cli import app
from medgen3d.config.experiment import CHAIN, SynthesisConfig
from medgen3d.core.hashing import sha256_of
from medgen3d.core.volume import Volume, affine_from_spacing
from medgen3d.measures.limits import CaseLimits, LabelLimits
from medgen3d.synthesis.gates import GateRules
from medgen3d.synthesis.on_ray import synthesize
from medgen3d.synthesis.run_options import RunOptions

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("ray_cluster")]  # a busy machine starts slowly
ONE = SynthesisConfig(batch=4, cpus_per_actor=0.25, max_redraws=1)
VOXEL_ML = 3.0 * 0.5 * 0.75 / 1000
MOST_PARTS = 114  # of six draws three have more; of their redraws two


def hashes(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): sha256_of(path) for path in sorted(root.glob("*/*.nii.gz"))}


def gated() -> RunOptions:
    """Noise falls into many parts, more or fewer."""
    bone = LabelLimits(always_present=True, volume_ml=(0.001, 9.0), num_components=MOST_PARTS, num_holes=10**6)
    return RunOptions(gates=GateRules(limits=CaseLimits(num_cases=3, labels={7: bone})), command="the same")


@pytest.fixture(scope="module")
def knee(tiny_as_pipeline):
    return tiny_as_pipeline("knee")


@pytest.fixture(scope="module")
def held_to_limits(knee, tmp_path_factory):
    out = tmp_path_factory.mktemp("gated") / "set"
    return out, synthesize(knee, 6, 11, out, ONE, options=gated())


def test_what_a_gate_rejects_is_drawn_again_and_every_case_ends_accepted_or_given_up_with_its_reasons(held_to_limits):
    out, summary = held_to_limits
    found = SyntheticSet(out)
    rows = sorted(found.rows.values(), key=lambda row: row.number)

    assert [row.number for row in rows] == list(range(6))
    assert Counter(row.status for row in rows) == {"done": summary.num_drawn, "failed": len(summary.failures)}
    assert {row.redraws for row in rows if row.status == "done"} == {0, 1}
    assert all(row.rejections == {"components": row.redraws} for row in rows if row.status == "done" and row.redraws)
    given_up = [row for row in rows if row.status == "failed"]
    assert given_up
    assert all(row.rejections == {"components": 2} for row in given_up)
    assert all("bone has" in row.message and "(drawn 2 times)" in row.message for row in given_up)
    assert not any((out / "images" / f"{row.case_id}.nii.gz").exists() for row in given_up)
    assert all(row.gates == {"limits": 1.0} for row in rows if row.status == "done")
    assert summary.rejections == {"components": sum(row.rejections.get("components", 0) for row in rows)}
    assert len(json.loads((out / "dataset.json").read_text())["training"]) == summary.num_drawn


@pytest.mark.soak
def test_the_same_gates_give_the_same_set_for_two_actors_and_it_is_finished_for_good(held_to_limits, knee, tmp_path):
    two = ONE.model_copy(update={"num_gate_actors": 2, "num_actors": ONE.num_actors.model_copy(update={"refiner": 2})})
    synthesize(knee, 6, 11, tmp_path / "set", two, options=gated())
    again = synthesize(knee, 6, 11, tmp_path / "set", two, options=gated())

    assert hashes(tmp_path / "set") == hashes(held_to_limits[0])
    assert again.num_drawn == 0
    assert len(again.failures) == len(held_to_limits[1].failures)


def test_plan_status_and_card_lie_next_to_the_pairs(held_to_limits):
    out, summary = held_to_limits
    status, card = RunStatus.read(Folder.of(out)), (out / "dataset_card.md").read_text()

    assert pq.read_table(out / "plan.parquet")["case_id"].to_pylist() == [f"syn_0000{number}" for number in range(6)]
    assert (status.state, status.done, status.failed) == ("finished", summary.num_drawn, len(summary.failures))
    assert status.rejections == summary.rejections
    assert list(status.stages) == [*CHAIN, "gates", "written"]
    assert all(stage.busy_s > 0 for stage in status.stages.values())
    assert f"{summary.num_drawn} accepted, {len(summary.failures)} given up" in card
    assert f"draws rejected for components: {summary.rejections['components']}" in card
    assert "licence of the training data | not known" in card
    shown = CliRunner().invoke(app, ["synthesize", "status", str(out)]).stdout
    assert f"{summary.num_drawn} of 6, {len(summary.failures)} given up" in shown


@pytest.fixture(scope="module")
def bucket(monkeypatch_module):
    """An address in a store that speaks S3."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = f"endpoint_override=http://{host}:{port}&region=us-east-1"
    FileSystem.from_uri(f"s3://key:secret@pairs?{options}&allow_bucket_creation=true")[0].create_dir("pairs")
    yield lambda name: f"s3://key:secret@pairs/{name}?{options}"
    server.stop()


def bytes_in_store(address: str, name: str) -> bytes:
    system, base = FileSystem.from_uri(address)
    with system.open_input_stream(f"{base}/{name}", compression=None) as stream:
        return stream.readall()


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield patch


def test_a_set_with_a_plan_is_drawn_into_an_object_store_and_completed_there(bucket, knee, tmp_path):
    dataset = read_bundle(knee.bundles["refiner"]).info.dataset
    voxels = np.random.default_rng(0).choice(np.array([0, 7, 300], np.uint16), (5, 10, 20))
    mask = Volume(voxels=voxels, affine=affine_from_spacing(dataset.spacing_mm))
    nifti.write(tmp_path / "mine.nii.gz", mask)
    (tmp_path / "plan.yaml").write_text(
        "cases:\n- {mask: mine.nii.gz}\n- {partial_mask: mine.nii.gz, known_slices: 1-2}\n- {spacing_mm: [3, 1, 1.5]}"
    )
    out, options = bucket("set"), RunOptions(plan=tmp_path / "plan.yaml", command="the same")
    config = ONE.model_copy(update={"batch": 2})
    synthesize(knee, None, 11, out, config, options=options)
    found = SyntheticSet(out)
    whole, partial, coarse = (found.read(case_id)[1] for case_id in found.case_ids)

    np.testing.assert_array_equal(whole.voxels, voxels)
    np.testing.assert_array_equal(partial.voxels[1:3], voxels[1:3])
    assert (partial.voxels[3:] != voxels[3:]).any()
    assert coarse.spacing_mm == pytest.approx((3, 1, 1.5))
    assert found.rows["syn_00002"].spacing_mm == pytest.approx((3, 1, 1.5))

    stored = bytes_in_store(out, "images/syn_00000.nii.gz")
    assert gzip.decompress(stored)[344:348] == b"n+1\0"  # one compression, as anybody would read it

    folder, before = Folder.of(out), Folder.of(out).read("images/syn_00001.nii.gz")
    folder.remove("images/syn_00001.nii.gz")
    summary = synthesize(knee, None, 11, out, config, options=options)
    assert (summary.num_kept, summary.num_drawn) == (2, 1)
    assert folder.read("images/syn_00001.nii.gz") == before
    assert not any(list(damages(out, found.info, row)) for row in found.rows.values())
    assert folder.names("manifest.parts") == []
    assert RunStatus.read(folder).state == "finished"
