"""Deaths of processes and machines while a set is drawn, on a cluster of several Ray nodes: the set stays the same.

Drivers are processes of their own. The networks draw with many steps, so that a batch takes long enough to be hit.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from medgen3d.artifacts.bundle import BundleInfo, read_bundle, write_bundle
from medgen3d.artifacts.bundle_weights import read_weights
from medgen3d.artifacts.run_status import RunStatus
from medgen3d.artifacts.storage import Folder
from medgen3d.artifacts.synthetic_set import SyntheticSet, damages
from medgen3d.core.hashing import sha256_of

COUNT = 6
SLOW = {"mask_generator": {"sampling_steps": 30}, "refiner": {"sampling_steps": 30}}
STAGES = ("MaskGenerator", "ImageSequenceGenerator", "Refiner")
LIMIT_S = 600.0
# Much is killed and started again, which takes long on a busy machine.
pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    (Path(os.environ["RAY_TMPDIR"]) / "ray").mkdir(exist_ok=True)
    node = {"num_cpus": 2, "object_store_memory": 150 * 2**20}
    made = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    made.add_node(**node)
    yield made
    made.shutdown()


@pytest.fixture(scope="module")
def start(cluster, tiny_pipeline):
    """start(out, count=, **arguments of the driver): a driver's process, which ends with the tests at the latest."""
    running: list[subprocess.Popen[str]] = []

    def make(out: Path, count: int = COUNT, **arguments: object) -> subprocess.Popen[str]:
        given = {
            "address": cluster.address,
            "bundles": {stage: str(root) for stage, root in tiny_pipeline.items()},
            "out": str(out),
            "node": str(node_file(out)),
            "count": count,
            "options": SLOW,
        }
        command = [sys.executable, str(Path(__file__).with_name("bulk_driver.py")), json.dumps(given | arguments)]
        running.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        return running[-1]

    yield make
    for driver in running:
        driver.kill()
        driver.wait()


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory) -> dict[str, str]:
    """The hashes of the set when nothing dies."""
    out = tmp_path_factory.mktemp("undisturbed") / "set"
    ended(start(out))
    return hashes(out)


def node_file(out: Path) -> Path:
    """Where a driver writes the id of the node that it sits on."""
    return out.with_name(f"{out.name}.node")


def kill_a_node(cluster: Cluster, out: Path) -> None:
    """One where neither the driver nor the cluster's head is: a driver dies with its node, as it does when killed."""
    own = node_file(out).read_text()
    lost = next(node for node in cluster.worker_nodes if node.node_id != own)
    cluster.remove_node(lost, allow_graceful=False)


def ended(driver: subprocess.Popen[str], code: int = 0) -> str:
    """What a driver said on stderr, once it is through."""
    _, said = driver.communicate(timeout=LIMIT_S)
    assert driver.returncode == code, said
    return said


def hashes(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out)): sha256_of(path) for path in sorted(out.glob("*/*.nii.gz"))}


def assert_complete(out: Path, expected: dict[str, str]) -> None:
    """Exactly the planned cases, every file as the manifest says and as in the set that was left alone."""
    found = SyntheticSet(out)
    assert len(found.case_ids) == len(expected) // 2
    assert all(not list(damages(out, found.info, row)) for row in found.rows.values())
    for case_id in found.case_ids:
        found.read(case_id)
    assert hashes(out) == expected
    assert list((out / "manifest.parts").iterdir()) == []
    assert [path for path in out.rglob("*") if "unfinished" in path.name] == []


def wait_for(condition, driver: subprocess.Popen[str]):
    """The first truthy value of a condition."""
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        if found := condition():
            return found
        assert driver.poll() is None, driver.stderr.read()[-2000:]
        time.sleep(0.02)
    raise AssertionError("it took too long")


def at_work(stage: str) -> str:
    """The end of the title of a process that is in the middle of a batch."""
    return f"{stage}Actor)).submit"


def parts(out: Path) -> int:
    return len(list((out / "manifest.parts").glob("*"))) + (out / "images").is_dir() * len(
        list((out / "images").glob("*.nii.gz"))
    )


def test_a_run_that_loses_actors_of_every_stage_then_a_node_then_its_driver_is_completed_with_the_same_bytes(
    cluster, start, undisturbed, ray_processes, tmp_path
):
    out = tmp_path / "set"
    cluster.add_node(num_cpus=2, object_store_memory=150 * 2**20)
    driver = start(out)
    for stage in STAGES:
        wait_for(lambda stage=stage: ray_processes(at_work(stage)), driver)[0].kill()
    kill_a_node(cluster, out)
    wait_for(lambda: parts(out), driver)
    driver.kill()
    driver.wait()
    ended(start(out))

    assert_complete(out, undisturbed)
    assert RunStatus.read(Folder.of(out)).state == "finished"


@pytest.mark.parametrize("stage", STAGES)
def test_an_actor_that_is_killed_in_mid_batch_costs_nothing(stage, start, undisturbed, ray_processes, tmp_path):
    driver = start(tmp_path / "set")
    wait_for(lambda: ray_processes(at_work(stage)), driver)[0].kill()
    ended(driver)
    assert_complete(tmp_path / "set", undisturbed)


def test_a_node_that_dies_costs_nothing(cluster, start, undisturbed, ray_processes, tmp_path):
    cluster.add_node(num_cpus=2, object_store_memory=150 * 2**20)
    driver = start(tmp_path / "set")
    wait_for(lambda: ray_processes(at_work("Refiner")), driver)
    kill_a_node(cluster, tmp_path / "set")
    ended(driver)
    assert_complete(tmp_path / "set", undisturbed)


def test_a_driver_that_is_killed_at_ten_random_moments_is_continued_each_time(start, undisturbed, tmp_path):
    moments = random.Random(5)
    out = tmp_path / "set"
    for _ in range(10):
        driver = start(out)
        began = time.monotonic()
        after = moments.uniform(1, 25)
        while time.monotonic() - began < after and driver.poll() is None:
            time.sleep(0.05)
        driver.kill()
        driver.wait()
    ended(start(out))
    assert_complete(out, undisturbed)


def test_a_case_that_kills_its_process_is_given_up_and_the_others_are_drawn(start, tmp_path):
    out = tmp_path / "set"
    ended(start(out, count=4, poisoned=2, options={}))
    found = SyntheticSet(out)

    assert found.case_ids == ["syn_00000", "syn_00001", "syn_00003"]
    assert found.rows["syn_00002"].status == "failed"
    assert "died 2 times" in found.rows["syn_00002"].message
    assert "drawn alone, since its batch killed" in found.rows["syn_00003"].message
    assert not any(list(damages(out, found.info, found.rows[case_id])) for case_id in found.case_ids)
    assert len(hashes(out)) == 6


def test_a_full_disk_ends_the_run_with_one_sentence_and_it_goes_on_once_there_is_room(start, undisturbed, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        said = ended(start(disk / "set"), code=2)
        assert "cannot be written (No space left on device). Make room" in said
        assert "Traceback" not in said
        found = SyntheticSet(disk / "set")
        assert len(found.case_ids) < COUNT
        assert all(not list(damages(disk / "set", found.info, found.rows[case_id])) for case_id in found.case_ids)
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        ended(start(disk / "set"))
        assert_complete(disk / "set", undisturbed)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_run_that_is_asked_to_end_finishes_what_it_has_begun_and_says_how_to_go_on(
    start, undisturbed, ray_processes, tmp_path
):
    out, count = tmp_path / "set", 3 * COUNT  # more than the stages hold at a time
    driver = start(out, count)
    wait_for(lambda: ray_processes(at_work("Refiner")), driver)
    driver.send_signal(signal.SIGINT)
    ended(driver, code=130)
    status, found = RunStatus.read(Folder.of(out)), SyntheticSet(out)

    assert (status.state, status.resume) == ("interrupted", "the same again")
    assert 0 < len(found.case_ids) == status.done < count
    ended(start(out, count))
    assert len(SyntheticSet(out).case_ids) == count
    assert undisturbed.items() <= hashes(out).items()


@pytest.fixture
def wide_pipeline(tiny_pipeline, tmp_path) -> dict[str, str]:
    """The same networks for a larger plane: a batch of sixteen cases of 9 x 64 x 64 takes 2.8 MiB."""
    found = {}
    for stage, root in tiny_pipeline.items():
        known = read_bundle(root)
        told = known.info.model_dump(mode="json")
        told["spec"]["plane"] = told["dataset"]["plane"] = (64, 64)
        told["dataset"]["shapes"] = [(9, 64, 64, 1)]
        info = BundleInfo.model_validate(told)
        write_bundle(tmp_path / stage, info, read_weights(root), known.provenance, preview_png=None)
        found[stage] = str(tmp_path / stage)
    return found


def test_slow_writing_holds_the_first_stage_back(start, wide_pipeline, tmp_path):
    out, count = tmp_path / "set", 1600  # 280 MiB in flight, if nothing held them back
    small = {"object_store_memory": 80 * 2**20, "num_cpus": 8, "include_dashboard": False}
    one_step = {"mask_generator": {"sampling_steps": 1}}
    driver = start(
        out,
        bundles=wide_pipeline,
        address="local",
        cluster=small,
        options=one_step,
        count=count,
        batch=16,
        refine=False,  # it would be the slowest, and hold the others back by itself
        write_s=3600,
    )

    def drawn() -> int:
        status = RunStatus.read(Folder.of(out)) if (out / "status.json").exists() else None
        return status.stages["mask_generator"].num_done if status else 0

    wait_for(drawn, driver)
    before = 0
    while before < drawn():  # until nothing was begun for a minute
        before = drawn()
        time.sleep(60)
    driver.kill()
    driver.wait()
    assert 0 < before * 9 * 64 * 64 * 5 < 80 * 2**20
