"""An evaluation on a real local cluster: tasks in order, errors as sentences, and verdicts through the command line."""

import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medgen3d import cli
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.report_files import read_report
from medgen3d.core.errors import DataError
from medgen3d.evaluation.on_ray import map_on_ray

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("ray_cluster")]


# Tasks


def test_results_come_in_the_order_of_the_items_and_progress_counts_to_their_number():
    seen = []

    def square_late(number):
        time.sleep(0.05 * (5 - number))  # the first items take longest
        return number**2

    assert map_on_ray(lambda *told: seen.append(told))("squares", square_late, range(6)) == [0, 1, 4, 9, 16, 25]
    assert seen == [("squares", done, 6) for done in range(1, 7)]


def test_nothing_is_done_for_no_items():
    assert map_on_ray(lambda *_: pytest.fail("there is nothing to tell"))("nothing", len, []) == []


def test_an_error_of_ours_arrives_as_the_same_sentence():
    def refuse(case_id):
        raise DataError(f"case {case_id}: cannot be used")

    with pytest.raises(DataError) as caught:
        map_on_ray(lambda *_: None)("read", refuse, ["a"])
    assert type(caught.value) is DataError
    assert str(caught.value) == "case a: cannot be used"


def test_a_bug_arrives_with_its_type():
    with pytest.raises(ZeroDivisionError):
        map_on_ray(lambda *_: None)("divide", lambda number: 1 // number, [0])


def test_a_task_computes_with_one_torch_thread():
    def num_threads(_):
        import torch

        return torch.get_num_threads()

    assert map_on_ray(lambda *_: None)("threads", num_threads, [0]) == [1]


# The command line


@pytest.fixture(scope="module")
def root(prepared_heads, copy_as_pairs, tmp_path_factory) -> Path:
    """Prepared heads, and a synthetic set that holds the very cases of its test split."""
    root = tmp_path_factory.mktemp("evaluation")
    (root / "prepared").symlink_to(prepared_heads.root)
    copy_as_pairs(prepared_heads, prepared_heads.info.case_ids("test"), root / "pairs")
    return root


def evaluate(root: Path, out: Path, *words: object):
    fixed = ("--real", root / "prepared", "--synthetic", root / "pairs", "--out", out, "--preset", "smoke")
    arguments = ["evaluate", *fixed, "--set", f"storage.root={root / 'store'}", *words]
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def goals(folder: Path, *lines: str) -> Path:
    path = folder / "goals.yaml"
    path.write_text("\n".join(f"- {line}" for line in lines))
    return path


@pytest.fixture(scope="module")
def judged(root):
    """With the default goals and a segmenter that is trained for the purpose; the command's result."""
    return evaluate(root, root / "out")


def test_without_goals_of_ones_own_the_verdicts_are_shown_and_the_exit_code_is_0_whatever_they_are(judged, root):
    assert judged.exit_code == 0, judged.output
    assert "usefulness.tstr_ratio" in judged.stdout
    assert "not measured" in judged.stdout
    assert f"Report: {root / 'out' / 'report.html'}" in judged.stdout
    assert "measure synthetic cases" in judged.stderr
    assert not read_report(root / "out").passed


def test_the_segmenter_is_trained_on_the_training_split_once_and_named_in_the_report(judged, root):
    (section,) = [section for section in read_report(root / "out").sections if section.name == "agreement"]
    assert "heads.segmenter version 1" in section.about
    again = evaluate(root, root / "again", "--gate", goals(root, "{figure: agreement.dice_gap, at_most: 2}"))
    assert again.exit_code == 0, again.output
    assert "train segmenter" not in again.stderr


def test_a_set_that_equals_the_test_split_has_no_gap_and_meets_its_goals(judged, root, tmp_path):
    components = "{figure: plausibility.components_difference.*, at_most: 0}"
    # Written images are rounded to whole numbers, after which a judge that hardly learnt may see a voxel otherwise.
    chosen = goals(tmp_path, "{figure: agreement.dice_gap, at_most: 0.01}", components)
    result = evaluate(root, tmp_path / "out", "--gate", chosen)
    assert result.exit_code == 0, result.output
    report = read_report(tmp_path / "out")
    assert report.passed
    assert len(report.verdicts) == 1 + len(PreparedSet(root / "prepared").info.labels) - 1  # no background


def test_a_gate_that_is_missed_or_not_measured_exits_with_1_and_is_named(root, tmp_path):
    chosen = goals(
        tmp_path,
        "{figure: novelty.near_copies, at_most: 1}",
        "{figure: fidelity.ms_ssim, at_most: -2}",
        "{figure: usefulness.tstr_ratio, at_least: 0.1}",
    )
    result = evaluate(root, tmp_path / "out", "--segmenter", "none", "--gate", chosen)
    assert result.exit_code == 1
    assert "2 of 3 goals are not met: fidelity.ms_ssim, usefulness.tstr_ratio" in result.stderr
    assert json.loads((tmp_path / "out" / "report.json").read_text())["schema_version"] == 2


def test_a_dry_run_says_what_each_section_would_be_made_of_and_writes_nothing(root, tmp_path):
    result = evaluate(root, tmp_path / "out", "--dry-run")
    assert result.exit_code == 0
    assert "Agreement of image and mask" in result.stdout
    assert "not run: It needs a study" in result.stdout
    assert not (tmp_path / "out").exists()


def test_choices_that_do_not_go_together_are_refused(root, tmp_path):
    result = evaluate(root, tmp_path / "out", "--extractor", "radimagenet-resnet50")
    assert result.exit_code == 2
    assert "--extractor and --weights go together" in result.stderr
