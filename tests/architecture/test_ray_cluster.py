"""ray_cluster.yaml is checked as `ray up` checks it before it talks to a cloud."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]


@pytest.fixture
def launcher() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    return config


def test_the_launcher_accepts_the_file(launcher: dict[str, Any]) -> None:
    validate_config(prepare_config(launcher))


def test_the_launcher_refuses_a_misspelt_key(launcher: dict[str, Any]) -> None:
    launcher["idle_timeout_minuts"] = launcher.pop("idle_timeout_minutes")
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minuts"):
        validate_config(prepare_config(launcher))


def test_the_head_offers_no_cpu_and_every_group_says_its_cpus_and_gpus(launcher: dict[str, Any]) -> None:
    groups = launcher["available_node_types"]
    assert groups[launcher["head_node_type"]]["resources"] == {"CPU": 0, "GPU": 0}
    assert all({"CPU", "GPU"} == set(group["resources"]) for group in groups.values())
    assert groups["gpu_worker"]["resources"]["GPU"] > 0
    assert groups["cpu_worker"]["resources"]["GPU"] == 0


def test_every_group_can_grow_to_its_own_maximum(launcher: dict[str, Any]) -> None:
    workers = [group for name, group in launcher["available_node_types"].items() if name != launcher["head_node_type"]]
    assert launcher["max_workers"] == sum(group["max_workers"] for group in workers)


@pytest.mark.parametrize("commands", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_every_node_starts_in_token_mode_with_the_token(launcher: dict[str, Any], commands: str) -> None:
    starts = [command for command in launcher[commands] if "ray start" in command]
    assert starts
    assert all("RAY_AUTH_MODE=token " in command for command in starts)
    assert "~/.ray/auth_token" in launcher["file_mounts"]
