"""The README's commands, run in order in the environment that is already there; what they leave behind.

The demo trains for minutes: here it says what it would do, `make soak` runs it. It draws chests in LPS orientation,
with thick slices and label ids with gaps.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.report_files import read_report
from medgen3d.artifacts.synthetic_set import SyntheticSet
from medgen3d.config.experiment import CHAIN
from medgen3d.core.hashing import sha256_of
from medgen3d.ingest.phantom import LABELS

pytestmark = pytest.mark.timeout(900)

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()
COMMAND_LANGUAGES = {"console", "bash"}
OTHER_LANGUAGES = {"json", "python", "text", "yaml"}
NOT_HERE = {"make test"}  # it would run itself
MINUTES = {"make demo"}
IDS = {0, *LABELS["thorax_ct"]}

BLOCK = re.compile(
    r"(?:<!--(?P<marker>(?:(?!-->).)*)-->\s*\n)?^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)
NOT_RUN = re.compile(r"\s*not run:\s*\S.*")


@dataclass(frozen=True)
class Block:
    """A code block. `marker` is the comment directly above it."""

    language: str
    body: str
    marker: str | None

    @property
    def commands(self) -> list[str]:
        lines = self.body.replace("\\\n", " ").splitlines()
        return [" ".join(line.split()) for line in lines if line.strip() and not line.startswith("#")]


def blocks(markdown: str) -> Iterator[Block]:
    for match in BLOCK.finditer(markdown):
        yield Block(match["language"], match["body"], match["marker"])


def commands(markdown: str) -> list[str]:
    return [
        command
        for block in blocks(markdown)
        if block.language in COMMAND_LANGUAGES and block.marker is None
        for command in block.commands
        if command not in NOT_HERE
    ]


def test_only_blocks_that_are_marked_with_a_reason_are_left_out():
    for block in blocks(README):
        assert block.language in COMMAND_LANGUAGES | OTHER_LANGUAGES, f"name the language of the block {block.body!r}"
        assert block.marker is None or NOT_RUN.fullmatch(block.marker), f"no reason in <!--{block.marker}-->"


def test_commands_are_found_in_order_without_comments_and_with_their_continuation_lines():
    markdown = (
        "```console\nmake demo\nmake test\n```\n\n"
        "<!-- a picture -->\n\n<!-- not run: needs a cloud -->\n```bash\nray up\n```\n"
        "text\n```bash\n# why\nmedgen3d train all \\\n  --data d\n```\n"
    )
    assert commands(markdown) == ["make demo", "medgen3d train all --data d"]
    assert NOT_RUN.fullmatch(" not run: needs a cloud ")
    assert not NOT_RUN.fullmatch(" not run: ")
    assert not NOT_RUN.fullmatch(" not run ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A checkout in which the environment is built, without anything that earlier runs have left behind."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (root / name).symlink_to(REPOSITORY / name)
    (root / ".venv").mkdir()
    for part in Path(sys.prefix).iterdir():
        if part.name != ".installed":
            (root / ".venv" / part.name).symlink_to(part)
    (root / ".venv" / ".installed").touch()  # newer than what it depends on: make installs nothing
    return root


def as_a_user() -> dict[str, str]:
    """The environment in which a person types these commands."""
    # Ray and telemetry as a user has them, apart from where Ray keeps its files.
    set_by_tests = (
        "OMP_NUM_THREADS",
        "RAY_AUTH_MODE",
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER",
        "RAY_USAGE_STATS_ENABLED",
    )
    # A make inside `make test` would announce the folders that it enters and leaves.
    set_by_make = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    return {key: value for key, value in os.environ.items() if key not in {*set_by_tests, *set_by_make}}


@pytest.fixture(scope="module")
def run(folder) -> Callable[[str], str]:
    """Run a command of the README, once however often it is asked for; what it says on stdout."""
    said: dict[str, str] = {}

    def once(command: str) -> str:
        if command not in said:
            said[command] = _run(command, folder)
        return said[command]

    return once


def _run(command: str, folder: Path) -> str:
    words = ["bash", "-euo", "pipefail", "-c", command]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, cwd=folder, env=as_a_user(), start_new_session=True, **pipes) as process:
        try:
            stdout, stderr = process.communicate()
        except BaseException:  # the test's time is over
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0, stdout + stderr
    return stdout


@pytest.mark.parametrize(
    "command",
    [pytest.param(each, marks=pytest.mark.soak) if each in MINUTES else each for each in commands(README)],
)
def test_the_readmes_command_succeeds(command: str, run):
    run(command)


def test_the_demo_says_what_it_would_do(run):
    assert "medgen3d-demo" in run("make demo DEMO=--dry-run")


@dataclass(frozen=True)
class Demo:
    """What the demo says at its end, and its folders."""

    picture: Path
    pairs: Path
    report: Path
    mlflow: str

    @property
    def phantoms(self) -> Path:
        return self.pairs.with_name("phantoms")


@pytest.fixture(scope="module")
def demo(run, folder) -> Demo:
    shown, pairs, report, mlflow = run("make demo").splitlines()[-4:]
    assert (pairs[:6], report[:7], mlflow[:7]) == ("Pairs:", "Report:", "MLflow:")
    return Demo(folder / shown.rpartition(" ")[2], *(folder / line.split()[-1] for line in (pairs, report)), mlflow[7:])


@pytest.fixture(scope="module")
def said(run) -> dict[str, str]:
    """What each of medgen3d's commands said, by its first words; of those for one's own data they are unique."""
    answers = {command: run(command) for command in commands(README) if command.startswith(".venv/bin/medgen3d ")}
    return {" ".join(command.split()[1:3]): answer for command, answer in answers.items()}


@pytest.mark.soak
def test_the_demo_ends_by_saying_where_everything_is_and_how_to_open_mlflow(demo):
    assert Image.open(demo.picture).format == "PNG"
    program, *words = demo.mlflow.split()
    assert os.access(program, os.X_OK)
    assert words[:2] == ["ui", "--backend-store-uri"]
    assert Path(words[2].removeprefix("sqlite:///")).exists()


@pytest.mark.soak
def test_pairs_have_the_grid_orientation_type_and_label_ids_of_the_source(demo):
    original = nib.load(demo.phantoms / "imagesTr" / "thorax_ct_0000.nii.gz")
    original_mask = nib.load(demo.phantoms / "labelsTr" / "thorax_ct_0000.nii.gz")
    assert len(set(original.header.get_zooms())) > 1
    for case_id in SyntheticSet(demo.pairs).case_ids:
        image, mask = (nib.load(demo.pairs / part / f"{case_id}.nii.gz") for part in ("images", "labels"))
        np.testing.assert_array_equal(image.affine, mask.affine)
        assert image.shape == mask.shape
        assert image.header.get_zooms() == pytest.approx(original.header.get_zooms(), rel=1e-5)
        assert nib.aff2axcodes(image.affine) == nib.aff2axcodes(original.affine) == ("L", "P", "S")
        assert image.get_data_dtype() == original.get_data_dtype() == np.int16
        assert mask.get_data_dtype() == original_mask.get_data_dtype() == np.uint8
        found = set(np.unique(mask.dataobj).tolist())
        assert found <= IDS
        assert len(found) > 1
        assert np.ptp(np.asarray(image.dataobj)) > 0


@pytest.mark.soak
def test_masks_show_every_label(demo):
    pairs = SyntheticSet(demo.pairs)
    masks = [pairs.read(case_id)[1].voxels for case_id in pairs.case_ids]
    assert set(np.unique(np.concatenate([mask.ravel() for mask in masks])).tolist()) == IDS


@pytest.mark.soak
def test_sizes_are_those_of_training_cases(demo):
    sizes = PreparedSet(demo.pairs.with_name("prepared")).info.shapes("train")
    rows = SyntheticSet(demo.pairs).rows
    assert len(rows) == 4
    assert all(row.shape in sizes for row in rows.values())


@pytest.mark.soak
def test_segmenters_find_the_pairs_and_the_original_label_ids_in_dataset_json(demo):
    description = json.loads((demo.pairs / "dataset.json").read_text())
    assert description["numTraining"] == len(description["training"]) == 4
    assert set(description["labels"].values()) == IDS
    assert description["labels"]["heart"] == 5
    for pair in description["training"]:
        assert (demo.pairs / pair["image"]).exists()
        assert (demo.pairs / pair["label"]).exists()


@pytest.mark.soak
def test_the_report_is_one_page_that_says_that_these_are_phantoms(demo):
    page = demo.report.read_text()
    assert "data:image/png;base64," in page
    assert "PHANTOM DATA" in page
    assert 'src="http' not in page


def test_each_step_on_ones_own_data_says_what_it_made(said, run):
    assert "Prepared set: medgen3d-runs/prepared" in said["ingest medgen3d-runs/source"]
    for stage in CHAIN:
        assert f"{stage}: registered as brains.{stage} version 1" in said["train all"]
    assert "brains.pipeline version 1, the candidate" in said["pipeline create"]
    assert "2 pairs drawn" in said["synthesize --pipeline"]
    assert "medgen3d-runs/report/report.html" in said["evaluate --real"]
    assert (
        "brains.pipeline version 1, now the champion (report: failed, forced: the report misses"
        in (said["pipeline promote"])
    )
    assert "candidate, champion" in run(".venv/bin/medgen3d pipeline list")


def test_the_manifest_says_where_every_pair_comes_from(said, folder):
    root = folder / "medgen3d-runs"
    found = SyntheticSet(root / "pairs")
    assert (found.info.pipeline_name, found.info.pipeline_version, found.info.seed) == ("brains", 1, 1)
    assert found.info.dataset_digest == PreparedSet(root / "prepared").digest
    assert found.info.phantom
    for case_id, row in found.rows.items():
        assert row.status == "done"
        assert row.image_sha256 == sha256_of(root / "pairs" / "images" / f"{case_id}.nii.gz")
        assert row.label_sha256 == sha256_of(root / "pairs" / "labels" / f"{case_id}.nii.gz")


def test_the_report_has_every_section_but_usefulness_and_asks_every_stage_which_cases_it_knows(said, folder):
    report = read_report(folder / "medgen3d-runs" / "report")
    assert [section.name for section in report.sections if section.not_run] == ["usefulness"]
    asked = {metric.name for metric in report.metrics if metric.name.startswith("novelty.membership.")}
    assert asked == {f"novelty.membership.{stage}" for stage in CHAIN}
    assert (report.pipeline.name, report.pipeline.version) == ("brains", 1)


def test_a_pipeline_whose_report_misses_goals_is_refused_without_force(said, run):
    refused = run(".venv/bin/medgen3d pipeline promote brains --report medgen3d-runs/report 2>&1 || [ $? = 2 ]")
    assert "brains.pipeline version 1 is not promoted: the report misses" in " ".join(refused.split())
