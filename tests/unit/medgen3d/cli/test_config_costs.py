from pathlib import Path

import pytest
from typer.testing import CliRunner

from medgen3d import cli
from medgen3d.config.load import load_config


def run(*arguments: object):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_config_show_says_what_the_configuration_costs_as_comments(tmp_path: Path):
    options = ("--preset", "smoke", "--set", "cluster.num_workers=3", "--size", "20x24x16", "--labels", 4)
    shown = run("config", "show", *options, "--tflops", 1e-3).stdout
    (tmp_path / "shown.yaml").write_text(shown)
    assert load_config(tmp_path / "shown.yaml").cluster.num_workers == 3
    lines = shown.splitlines()
    costs = lines[
        [line.startswith("# Costs of cases of 20 x 24 x 16 voxels with 4 labels") for line in lines].index(True) :
    ]
    trained, drawn = [line for line in costs if line.startswith("# refiner ")]
    _, _, steps, workers, _, batch, tflop, _, seconds, unit = trained.split()
    assert (steps, workers, batch, unit) == ("4", "3", "2", "s")
    assert float(seconds) == pytest.approx(4 * float(tflop) / 1e-3, rel=0.1)
    assert drawn.split()[2] == "2"  # calls: both steps hold their slices in one batch
    assert not any(line.startswith("#") for line in run("config", "show", "--no-costs").stdout.splitlines())
