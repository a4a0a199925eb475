"""Starting Ray and connecting to it, in processes of their own: a process has one connection."""

import os
import re
import subprocess
import sys
from pathlib import Path

CONNECT = """
import ray
from medgen3d.config.load import load_config
from medgen3d.recipes.cluster import connect, settle_gpus
"""


def run(program: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}  # as users have it
    return subprocess.run(
        [sys.executable, "-c", CONNECT + program],
        capture_output=True,
        text=True,
        env=kept | {"HOME": str(home)} | environment,
        timeout=240,
    )


def test_a_local_cluster_has_slots_for_all_pools_and_a_token_that_lies_in_no_file(tmp_path: Path):
    program = """
with connect():
    config = settle_gpus(load_config())
    print(int(ray.cluster_resources()["CPU"]) >= 8, config.cluster.use_gpu, config.synthesis.use_gpu)
    address = ray.get_runtime_context().gcs_address
    import os, subprocess, sys
    strange = dict(os.environ, RAY_AUTH_TOKEN="f" * 64)
    script = f"from medgen3d.recipes.cluster import connect\\nwith connect({address!r}): pass"
    refused = subprocess.run([sys.executable, "-c", script], env=strange, capture_output=True, text=True)
    print(refused.stderr.splitlines()[-1])
    @ray.remote(max_restarts=1, num_cpus=0)
    class Named:
        def __init__(self, name): self.name = name
        def say(self): return self.name
    print(ray.get(Named.remote(ray.put("named")).say.remote()))
print(ray.is_initialized())
"""
    done = run(program, tmp_path)
    assert done.returncode == 0, done.stderr
    resources, refused, said, after = done.stdout.splitlines()
    assert resources == "True False False"  # no test machine has GPUs
    assert "refused the connection" in refused
    assert "RAY_AUTH_TOKEN" in refused
    assert after == "False"
    assert list(tmp_path.iterdir()) == []
    assert said == "named"
    assert done.stderr == ""  # Ray's core warns of such an actor's arguments


def test_a_local_cluster_that_does_not_start_in_time_is_one_sentence_and_exit_code_1(tmp_path: Path):
    two_minutes = "NodeInfoGcsService.grpc_server.RegisterNode=120000000:120000000"
    slow = {"RAY_testing_asio_delay_us": two_minutes, "RAY_raylet_start_wait_time_s": "1"}
    program = f"from medgen3d.cli import app\napp(['ingest', {str(tmp_path)!r}, '--out', {str(tmp_path / 'new')!r}])"
    done = run(program, tmp_path, **slow)
    assert done.returncode == 1
    (line,) = [each for each in done.stderr.splitlines() if not each.startswith("RAY_testing")]
    said = r"Error: Ray did not start within \d+ s; the machine may be busy: try again, or raise (\w+)"
    assert re.fullmatch(said, line)[1] == "RAY_raylet_start_wait_time_s"
    assert list(tmp_path.iterdir()) == []


def test_a_connection_that_exists_is_used_and_left_open(ray_cluster: None):
    import ray

    from medgen3d.recipes.cluster import connect

    before = ray.get_runtime_context().gcs_address
    with connect():
        assert ray.get_runtime_context().gcs_address == before
    assert ray.is_initialized()
