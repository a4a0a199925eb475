import pytest

from medgen3d.artifacts.dataset_card import write_card
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
