"""Serve config files: made, and checked for what Ray would silently ignore."""

from pathlib import Path

import pytest
import yaml

from medgen3d.config.experiment import ExperimentConfig
from medgen3d.config.load import load_config
from medgen3d.core.errors import ConfigError
from medgen3d.recipes.deploy import read_serve_file, serve_file

SHIPPED = Path(__file__).parents[4] / "deploy" / "serve.yaml"


def changed(tmp_path: Path, change: str, by: str) -> Path:
    text = SHIPPED.read_text()
    assert text.count(change) >= 1
    (tmp_path / "serve.yaml").write_text(text.replace(change, by, 1))
    return tmp_path / "serve.yaml"


def test_the_shipped_file_is_sound_and_is_a_configuration_for_every_command():
    content = read_serve_file(SHIPPED)
    assert content["http_options"]["host"] == "127.0.0.1"
    assert load_config(SHIPPED).serving.pipelines == ("builtin/hippocampus",)


def test_a_file_made_of_a_configuration_is_sound_and_says_the_same(tmp_path):
    config = load_config(overrides=["serving.pipelines=[knee@champion]", f"storage.root={tmp_path}"])
    (tmp_path / "serve.yaml").write_text(serve_file(config))
    read_serve_file(tmp_path / "serve.yaml")
    assert load_config(tmp_path / "serve.yaml") == config.with_absolute_paths()


def test_paths_in_a_made_file_hold_in_every_folder():
    args = yaml.safe_load(serve_file(ExperimentConfig()))["applications"][0]["args"]
    assert Path(args["storage"]["root"]).is_absolute()
    assert Path(args["serving"]["folder"]).is_absolute()


@pytest.mark.parametrize(
    ("change", "by", "sentence"),
    [
        ("proxy_location:", "proxy_locaton:", r"unknown key 'proxy_locaton' \(did you mean 'proxy_location'\?\)"),
        ("  host: 127.0.0.1 #", "  hots: 127.0.0.1 #", r"unknown key 'http_options.hots' \(did you mean 'host'\?\)"),
        ("route_prefix:", "route_prefx:", r"unknown key 'applications.0.route_prefx'"),
        ("max_running", "max_runing", r"unknown key 'serving.max_runing' \(did you mean 'serving.max_running'\?\)"),
        ("max_running: 16", "max_running: many", "serving.max_running: found 'many'"),
        ("proxy_location: EveryNode", "proxy_location: Everywhere", "proxy_location"),
        ("  port: 8000\n", "  port: 9000\n", r"http_options.port is 9000, but serving.port is 8000"),
        ("name: medgen3d", "name: pairs", "the application must be called medgen3d, got pairs"),
        ("root: /shared/", "root: ", r"storage.root must be absolute"),
        ("import_path: medgen3d.", "import_path: other.", "none of its applications has the import_path"),
        (
            "route_prefix: /",
            "deployments: [{name: refiner, num_replica: 2}]",
            r"'applications.0.deployments.0.num_repl",
        ),
    ],
)
def test_a_mistake_is_told_in_a_sentence(change, by, sentence, tmp_path):
    with pytest.raises(ConfigError, match=sentence):
        read_serve_file(changed(tmp_path, change, by))


def test_free_tables_may_hold_any_key(tmp_path):
    options = "deployments: [{name: refiner, ray_actor_options: {resources: {big: 1}}, user_config: {any: 1}}]"
    read_serve_file(changed(tmp_path, "route_prefix: /", options))


def test_a_plain_configuration_is_no_serve_file(tmp_path):
    (tmp_path / "plain.yaml").write_text("serving: {port: 8000}")
    with pytest.raises(ConfigError, match=r"`medgen3d serve config --config .*plain\.yaml` makes one of it"):
        read_serve_file(tmp_path / "plain.yaml")
