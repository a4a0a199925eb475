from datetime import UTC, datetime

import pytest

from medgen3d.artifacts.dataset_card import with_quality, write_card
from medgen3d.artifacts.report import EvaluatedPipeline, Report, SetDescription
from medgen3d.artifacts.report_parts import Metric, ReportSection
from medgen3d.artifacts.storage import Folder


@pytest.fixture
def card(make_synthetic, tmp_path):
    """The card of a set with two pairs and a failed case."""

    def make(licence=None, idle=None, **changes):
        root = make_synthetic(tmp_path / "set", range(2), **changes)
        write_card(Folder.of(root), licence, idle or {})
        return (root / "dataset_card.md").read_text()

    return make


def test_a_card_says_how_many_and_from_what_and_under_which_licence(card):
    text = card("CC-BY-SA 4.0", {"alignment": "no segmenter"}, gates={"limits": "9" * 64}, refined=False)

    assert "2 accepted, 1 given up, 0 not drawn yet" in text
    assert "abdomen version 4, seed 77, not refined" in text
    assert "licence of the training data | CC-BY-SA 4.0" in text
    assert "- limits: run (digest of its limits `999999999999`)" in text
    assert "- alignment: not run, no segmenter" in text
    assert "PHANTOM" not in text


def test_a_card_says_what_is_not_known_and_that_phantoms_are_phantoms(card):
    text = card(phantom=True)

    assert "licence of the training data | not known" in text
    assert "None ran: every draw was accepted." in text
    assert "**PHANTOM DATA**" in text


@pytest.mark.parametrize(
    ("label_ids", "words"), [("original", "which nnU-Net refuses"), ("consecutive", "1 is 5, 2 is 9")]
)
def test_a_card_says_which_ids_the_files_have(card, label_ids, words):
    assert words in card(label_ids=label_ids)


def test_ids_without_gaps_are_nothing_to_tell(card):
    assert "nnU-Net refuses" not in card(labels={0: "background", 1: "liver", 2: "spleen"})


def report_on_two_pairs() -> Report:
    metric = Metric(name="fidelity.fid.axial", title="FID, axial", value=5.42, floor=2.84, num=20)
    unmeasured = Metric(name="fidelity.ms_ssim", title="MS-SSIM", value=None, note="no training set", num=0)
    section = ReportSection(name="fidelity", title="Fidelity", about="", metrics=[metric, unmeasured])
    described = SetDescription(name="abdomen", num_cases=2, phantom=False, facts={})
    pipeline = EvaluatedPipeline(name="abdomen", version=4, weights_sha256={}, config_hash="c", dataset_digest="d")
    return Report(
        created=datetime(2026, 12, 1, tzinfo=UTC),
        code_version="0",
        spacing_mm=(1, 1, 1),
        real=described,
        synthetic=described,
        train=None,
        pipeline=pipeline,
        verdicts=[],
        sections=[section],
    )


def test_the_seven_criteria_have_the_figures_of_a_report_or_say_that_there_are_none(card):
    plain = card()
    names = ("congruence", "coverage", "constraint", "completeness", "compliance", "comprehension", "consistency")
    assert [f"| {name} |" in plain for name in names] == [True] * 7
    assert plain.count("not measured") == 6
    assert "`medgen3d evaluate` writes this card" in plain
    filled = with_quality(plain, report_on_two_pairs())
    assert "FID, axial 5.42 (real against real 2.84)" in filled
    assert filled.count("not measured") == 5
    assert "report of 2026-12-01 on 2 pairs" in filled
    assert filled.partition("## Quality")[0] == plain.partition("## Quality")[0]
    assert with_quality(filled, report_on_two_pairs()) == filled
