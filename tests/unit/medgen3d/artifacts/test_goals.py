import pytest

from medgen3d.artifacts.goals import Goal, default_goals, judge_metrics, read_goals
from medgen3d.artifacts.report_parts import Metric
from medgen3d.core.errors import ConfigError


def metric(name, value, floor=None):
    return Metric(name=name, title=f"Title of {name}", value=value, floor=floor, num=8, note="" if value else "absent")


def passed(goal, value, floor=None):
    (verdict,) = judge_metrics([goal], [metric("a.b", value, floor)])
    return verdict.passed


@pytest.mark.parametrize(
    ("value", "expected"), [(0.02, True), (0.03, True), (0.031, False), (-5.0, True), (None, None)]
)
def test_at_most_is_met_up_to_and_with_the_limit(value, expected):
    assert passed(Goal(metric="a.b", at_most=0.03), value) is expected


@pytest.mark.parametrize(("value", "expected"), [(0.94, True), (0.93, True), (0.92, False), (None, None)])
def test_at_least_is_met_from_the_limit_on(value, expected):
    assert passed(Goal(metric="a.b", at_least=0.93), value) is expected


@pytest.mark.parametrize(
    ("value", "floor", "expected"),
    [
        (3.0, 2.0, True),  # 1.5 floors
        (3.1, 2.0, False),
        (3.0, None, None),
        (None, 2.0, None),
        (0.0, 0.0, True),  # nothing differs anywhere
        (0.1, 0.0, False),
    ],
)
def test_a_limit_in_floors_is_compared_with_the_floor_and_without_one_not_measured(value, floor, expected):
    assert passed(Goal(metric="a.b", at_most_floors=1.5), value, floor) is expected


def test_a_limit_of_zero_is_a_limit():
    assert passed(Goal(metric="a.b", at_most=0), 0.5) is False
    assert passed(Goal(metric="a.b", at_least=0), -0.5) is False


def test_a_pattern_judges_every_metric_that_fits_and_no_other():
    metrics = [
        metric("fidelity.fid.axial", 4.0, 2.0),
        metric("fidelity.kid.axial", 9.0),
        metric("fidelity.fid.coronal", 6.0, 2.0),
    ]
    verdicts = judge_metrics([Goal(metric="fidelity.fid.*", at_most_floors=2.5)], metrics)
    assert [(each.metric, each.ratio, each.passed) for each in verdicts] == [
        ("fidelity.fid.axial", 2.0, True),
        ("fidelity.fid.coronal", 3.0, False),
    ]


def test_a_name_with_signs_that_patterns_use_means_itself():
    (verdict,) = judge_metrics([Goal(metric="a.lobe[1]", at_most=1)], [metric("a.lobe[1]", 0.5)])
    assert verdict.passed


def test_a_goal_that_no_metric_fits_is_not_measured():
    (verdict,) = judge_metrics([Goal(metric="novelty.*", at_most=0.01)], [metric("fidelity.fid.axial", 4.0)])
    assert (verdict.metric, verdict.value, verdict.passed) == ("novelty.*", None, None)


def test_a_verdict_says_in_a_sentence_what_was_wanted():
    goals = [
        Goal(metric="a.b", at_most_floors=1.5),
        Goal(metric="a.b", at_least=0.9, title="Use of pairs"),
        Goal(metric="x", at_most=2),
    ]
    sentences = [verdict.goal for verdict in judge_metrics(goals, [metric("a.b", 1.0, 1.0)])]
    assert sentences == [
        "Title of a.b: at most 1.5 × the real-to-real floor",
        "Use of pairs: at least 0.9",
        "x: at most 2",
    ]


def test_the_goals_of_every_report_are_those_that_were_agreed():
    assert [(goal.metric, goal.at_most, goal.at_least, goal.at_most_floors) for goal in default_goals()] == [
        ("agreement.dice_gap", 0.03, None, None),
        ("usefulness.tstr_ratio", None, 0.93, None),
        ("usefulness.gain.10", None, 0.02, None),
        ("plausibility.volume.*", None, None, 1.5),
        ("plausibility.components_difference.*", 0.1, None, None),
        ("fidelity.fid.*", None, None, 2.5),
        ("novelty.near_copies", 0.01, None, None),
        ("novelty.near_copies_image", 0.02, None, None),
        ("novelty.nearer_to_training.*", 0.55, None, None),
    ]


def test_goals_are_read_from_a_yaml_list(tmp_path):
    path = tmp_path / "goals.yaml"
    path.write_text("- figure: a.*\n  title: All of a\n  at_most: 3e-2\n- {figure: b, at_least: 1}\n")
    assert read_goals(path) == [Goal(metric="a.*", title="All of a", at_most=0.03), Goal(metric="b", at_least=1)]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("- {figure: a, at_mots: 1}", r"goal 1, at_mots: .* a goal's keys are figure, title, at_most, at_least"),
        ("- {figure: a, at_most: 1}\n- {at_most: 1}", r"goal 2, figure: Field required"),
        ("- {figure: a}", "the goal of a needs exactly one of at_most, at_least and at_most_floors"),
        ("- {figure: a, at_most: 1, at_least: 0}", "the goal of a needs exactly one of"),
        ("- {figure: a, at_most: .nan}", "goal 1, at_most: "),
        ("figure: a", "holds no list of goals"),
        ("", "holds no list of goals"),
        ("- [", "is not valid YAML"),
    ],
)
def test_other_content_is_refused_with_the_file_the_goal_and_the_key(tmp_path, content, sentence):
    path = tmp_path / "goals.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=sentence) as caught:
        read_goals(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the goals .*absent\.yaml: No such file"):
        read_goals(tmp_path / "absent.yaml")
