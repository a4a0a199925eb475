"""The whole main job once, through the command line: labelled volumes in, image and mask pairs and a report out."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from medgen3d import cli
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.report import read_report
from medgen3d.artifacts.synthetic_set import SyntheticSet
from medgen3d.config.experiment import CHAIN
from medgen3d.core.hashing import sha256_of
from medgen3d.ingest.phantom import LABELS, write_phantoms

pytestmark = pytest.mark.timeout(600)

NUM_PAIRS, SEED = 2, 5
IDS = {0, *LABELS["thorax_ct"]}  # with gaps


def medgen3d(root: Path, *words: object) -> str:
    """Run one command in this process and on its cluster; what it says on stdout."""
    choices = (f"storage.root={root / 'store'}", "cluster.num_workers=2", "synthesis.batch=1")
    settings = ["--preset", "smoke", *(word for choice in choices for word in ("--set", choice))]
    result = CliRunner().invoke(cli.app, [*map(str, words), *settings])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Eight chests in LPS orientation, with voxels of three different lengths and label ids with gaps."""
    root = tmp_path_factory.mktemp("main_job") / "source"
    write_phantoms("thorax_ct", 8, 3, root, size=(10, 16, 24))
    return root


@pytest.fixture(scope="module")
def said(ray_cluster, source) -> dict[str, str]:
    """Everything, from ingest to a champion, with two training workers; what each command said."""
    root = source.parent
    synthesize = ("synthesize", "--pipeline", "chests@candidate", "--count", NUM_PAIRS, "--seed", SEED)
    sets = ("--real", root / "prepared", "--synthetic", root / "pairs")
    return {
        "ingest": medgen3d(root, "ingest", source, "--out", root / "prepared", "--name", "chests"),
        "train": medgen3d(root, "train", "all", "--data", root / "prepared"),
        "create": medgen3d(root, "pipeline", "create", "chests"),
        "synthesize": medgen3d(root, *synthesize, "--out", root / "pairs"),
        "evaluate": medgen3d(root, "evaluate", *sets, "--out", root / "report", "--pipeline", "chests@1"),
        "promote": medgen3d(root, "pipeline", "promote", "chests", "--report", root / "report", "--force"),
        "list": medgen3d(root, "pipeline", "list"),
    }


@pytest.fixture
def pairs(said, source) -> Path:
    return source.parent / "pairs"


def test_each_step_says_what_it_made(said, source):
    assert f"Prepared set: {source.parent / 'prepared'}" in said["ingest"]
    for stage in CHAIN:
        assert f"{stage}: registered as chests.{stage} version 1" in said["train"]
    assert "chests.pipeline version 1, the candidate" in said["create"]
    assert f"{NUM_PAIRS} pairs drawn" in said["synthesize"]
    assert str(source.parent / "report" / "report.html") in said["evaluate"]
    assert "chests.pipeline version 1, now the champion (report: failed, forced: the report misses" in said["promote"]
    assert "candidate, champion" in said["list"]


def test_pairs_have_the_grid_orientation_type_and_label_ids_of_the_source(pairs, source):
    original = nib.load(source / "imagesTr" / "thorax_ct_0000.nii.gz")
    original_mask = nib.load(source / "labelsTr" / "thorax_ct_0000.nii.gz")
    assert len(set(original.header.get_zooms())) == 3
    for case_id in ("syn_00000", "syn_00001"):
        image, mask = (nib.load(pairs / folder / f"{case_id}.nii.gz") for folder in ("images", "labels"))
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


def test_sizes_are_those_of_training_cases(pairs, source):
    sizes = PreparedSet(source.parent / "prepared").info.shapes("train")
    assert all(row.shape in sizes for row in SyntheticSet(pairs).rows.values())


def test_the_manifest_says_where_every_pair_comes_from(pairs, source):
    found = SyntheticSet(pairs)
    assert (found.info.pipeline_name, found.info.pipeline_version, found.info.seed) == ("chests", 1, SEED)
    assert found.info.dataset_digest == PreparedSet(source.parent / "prepared").digest
    assert found.info.phantom
    assert set(found.info.labels) == IDS
    for case_id, row in found.rows.items():
        assert row.status == "done"
        assert row.image_sha256 == sha256_of(pairs / "images" / f"{case_id}.nii.gz")
        assert row.label_sha256 == sha256_of(pairs / "labels" / f"{case_id}.nii.gz")


def test_segmenters_find_the_pairs_and_the_original_label_ids_in_dataset_json(pairs):
    description = json.loads((pairs / "dataset.json").read_text())
    assert description["numTraining"] == len(description["training"]) == NUM_PAIRS
    assert set(description["labels"].values()) == IDS
    assert description["labels"]["heart"] == 5
    for pair in description["training"]:
        assert (pairs / pair["image"]).exists()
        assert (pairs / pair["label"]).exists()


def test_the_same_seed_gives_the_same_files_whatever_the_number_of_workers(pairs, source, tmp_path):
    twice = [word for stage in CHAIN for word in ("--set", f"synthesis.num_actors.{stage}=2")]
    again = ("synthesize", "--pipeline", "chests", "--count", NUM_PAIRS, "--seed", SEED, "--out", tmp_path / "again")
    medgen3d(source.parent, *again, *twice, "--set", "synthesis.cpus_per_actor=0.25")
    for path in sorted(pairs.glob("*/*.nii.gz")):
        assert sha256_of(tmp_path / "again" / path.relative_to(pairs)) == sha256_of(path)


def test_the_report_is_one_page_that_says_that_these_are_phantoms(said, source):
    page = (source.parent / "report" / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert "PHANTOM DATA" in page
    assert 'src="http' not in page


def test_the_report_has_every_section_but_usefulness_and_asks_every_stage_which_cases_it_knows(said, source):
    report = read_report(source.parent / "report")
    assert [section.name for section in report.sections if section.not_run] == ["usefulness"]
    asked = {figure.name for figure in report.figures if figure.name.startswith("novelty.membership.")}
    assert asked == {f"novelty.membership.{stage}" for stage in CHAIN}
    assert (report.pipeline.name, report.pipeline.version) == ("chests", 1)


def test_a_pipeline_whose_report_misses_goals_is_refused_without_force(said, source):
    words = ("pipeline", "promote", "chests", "--report", source.parent / "report")
    result = CliRunner().invoke(cli.app, [*map(str, words), "--set", f"storage.root={source.parent / 'store'}"])
    assert result.exit_code == 2
    assert "chests.pipeline version 1 is not promoted: the report misses" in result.stderr
