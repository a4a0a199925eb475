"""Groups of made-up bodies: a box of label 1 below a box of label 2, each a little different from the others."""

import io

import numpy as np
import pytest
from PIL import Image

from medgen3d.core.labels import LabelTable
from medgen3d.evaluation.plausibility import measure_mask, plausibility

LABELS = LabelTable.from_mapping({0: "background", 4: "Lower part", 9: "upper.part"})


def body(width, *, upside_down=False):
    """Both labels are as many columns wide as said; the lower one has 4 slices, the upper one 3."""
    mask = np.zeros((12, 10, 24), dtype=np.uint8)
    mask[1:5, 2:6, 1 : 1 + width] = 1
    mask[5:8, 2:6, 1 : 1 + width] = 2
    return mask[::-1] if upside_down else mask


def measured(masks, num_labels=3):
    return [measure_mask(mask, num_labels, (1.0, 1.0, 1.0)) for mask in masks]


def bodies(num_cases, seed, **options):
    widths = np.random.default_rng(seed).integers(6, 11, size=num_cases)
    return [body(width, **options) for width in widths]


def found(real, synthetic, labels=LABELS):
    return plausibility(measured(real, len(labels)), measured(synthetic, len(labels)), labels, np.random.default_rng(0))


def metrics(real, synthetic):
    return {metric.name.removeprefix("plausibility."): metric for metric in found(real, synthetic).section.metrics}


def table(findings, title):
    return next(each for each in findings.section.tables if each.title == title)


def test_every_measure_of_every_label_and_pair_has_a_metric():
    of_labels = (
        *("volume", "centroid_d", "centroid_h", "centroid_w", "surface_to_volume", "components", "holes"),
        *("volume_difference", "components_difference", "presence_difference"),
    )
    of_pair = {"adjacency.Lower_part.upper_part", "order.Lower_part.upper_part"}
    expected = {f"{measure}.{label}" for label in ("Lower_part", "upper_part") for measure in of_labels} | of_pair

    assert set(metrics(bodies(4, 0), bodies(4, 1))) == expected


def test_sets_of_one_and_the_same_body_are_nowhere_apart_and_have_no_ratios():
    section = found([body(8)] * 6, [body(8)] * 4).section

    assert {(metric.value, metric.ratio) for metric in section.metrics} == {(0, None)}
    assert [each.title for each in section.tables] == ["Worst", "Labels"]


def test_bodies_drawn_alike_lie_at_the_floor():
    every = metrics(bodies(60, 0), bodies(60, 1))
    assert every["volume.Lower_part"].ratio == pytest.approx(1, abs=0.6)


def test_doubled_volumes_differ_by_one_whole_real_mean_and_lie_well_over_the_floor():
    real = bodies(20, 0)
    doubled = [np.repeat(mask, 2, axis=1) for mask in real]
    every = metrics(real, doubled)

    assert every["volume_difference.Lower_part"].value == pytest.approx(1)
    assert every["volume.Lower_part"].ratio > 3
    low, high = every["volume_difference.Lower_part"].interval
    assert 0.5 < low < 1 < high < 1.5
    assert every["centroid_h.Lower_part"].value == pytest.approx(0)  # shares of a doubled height


def test_one_more_component_in_half_of_the_cases_is_a_difference_of_a_half():
    broken = body(8)
    broken[10, 8, 20] = 1
    every = metrics([body(8)] * 4, [body(8), broken] * 3)

    assert every["components_difference.Lower_part"].value == pytest.approx(0.5)
    assert every["components_difference.upper_part"].value == 0


def test_upside_down_bodies_are_noticed_by_the_order_and_not_by_the_volume():
    # The centres lie 3 and 6.5 slices above the lowest edge: 3.5 of 12 slices apart, in the other direction.
    every = metrics([body(8)] * 4, [body(8, upside_down=True)] * 4)
    order = every["order.Lower_part.upper_part"]

    assert order.value == pytest.approx(2 * 3.5 / 12)
    assert "100% of the real and 0% of the synthetic" in order.note
    assert every["volume.Lower_part"].value == 0


def test_labels_that_come_apart_lose_their_shared_surface():
    # Width 8: 32 faces are shared, of 160 and of 136.
    apart = body(8)
    apart[5:8] = 0
    apart[8:11, 2:6, 1:9] = 2
    share = (32 / 160 + 32 / 136) / 2

    adjacency = metrics([body(8)] * 4, [apart] * 4)["adjacency.Lower_part.upper_part"]
    assert adjacency.value == pytest.approx(share)
    only_synthetic = metrics([apart] * 4, [body(8)] * 4)["adjacency.Lower_part.upper_part"]
    assert (only_synthetic.value, only_synthetic.floor) == (pytest.approx(share), 0)


def test_a_label_that_is_absent_counts_as_no_volume_and_as_missing_nowhere_else():
    without = body(8)
    without[without == 2] = 0
    every = metrics([body(8)] * 4, [body(8), without] * 2)

    assert every["presence_difference.upper_part"].value == pytest.approx(-0.5)
    assert every["volume_difference.upper_part"].value == pytest.approx(-0.5)
    assert every["volume.upper_part"].value > 0
    assert every["components.upper_part"].value == 0
    assert every["components.upper_part"].num == 2  # the two synthetic cases that have it


def test_a_label_that_no_synthetic_case_has_says_so():
    without = body(8)
    without[without == 2] = 0
    every = metrics([body(8), body(9)], [without] * 2)

    assert every["components.upper_part"].value is None
    assert every["components.upper_part"].note == "It was found in no synthetic case."
    assert every["order.Lower_part.upper_part"].value is None


def test_the_worst_are_those_with_the_largest_ratios_largest_first():
    real = bodies(20, 0)
    shifted = [np.roll(mask, 10, axis=2) for mask in bodies(20, 1)]
    worst = table(found(real, shifted), "Worst")
    ratios = [row[-1] for row in worst.rows]

    assert {tuple(row[:2]) for row in worst.rows[:2]} == {
        ("Lower part", "centre along W"),
        ("upper.part", "centre along W"),
    }
    assert ratios == sorted(ratios, reverse=True)


def test_what_differs_in_synthetic_cases_only_has_a_table_of_its_own():
    hollow = body(8)
    hollow[2:4, 3:5, 4] = 0
    findings = found([body(8)] * 4, [hollow] * 4)
    rows = table(findings, "Synthetic cases differ where real ones do not").rows

    assert ["Lower part", "holes", 1.0] in rows
    assert [row[1] for row in rows if row[0] == "upper.part"] == []


def test_the_table_of_labels_gives_means_deviations_and_cases():
    without = body(8)
    without[without == 2] = 0
    rows = table(found([body(6), body(10)], [body(8), without]), "Labels").rows

    # Label 1: 4 x 4 x 6 = 96 and 160 voxels, so 128 ± 32; label 2 has 96 voxels in one of two cases, so 48 ± 48.
    assert rows[0] == [
        *("Lower part", 4, "0.128 ± 0.032", "0.128 ± 0", "128 ± 32", "128 ± 0"),
        *("1 ± 0", "1 ± 0", "0 ± 0", "0 ± 0", "2 of 2", "2 of 2"),
    ]
    assert rows[1][5] == "48 ± 48"
    assert rows[1][-2:] == ["2 of 2", "1 of 2"]


def test_many_labels_have_complete_tables_and_pictures_of_the_twelve_worst():
    labels = LabelTable.from_mapping({label: f"part {label}" for label in range(1, 15)})
    widths = np.random.default_rng(0).integers(4, 9, size=(8, 14))

    def rods(row, longer=()):
        mask = np.zeros((16, 3, 24), dtype=np.uint8)
        for label, width in enumerate(row, start=1):
            mask[label, 1, 1 : 1 + width + 8 * (label in longer)] = label
        return mask

    findings = found([rods(row) for row in widths], [rods(row, longer={3, 14}) for row in widths], labels)
    worst = table(findings, "Worst").rows

    assert len(table(findings, "Labels").rows) == 14
    assert len(worst) == 10
    assert {row[0] for row in worst if row[1] == "volume"} == {"part 3", "part 14"}
    for picture in findings.section.pictures:
        assert "12 labels of 14" in picture.caption


def test_pictures_are_those_that_the_section_names_and_the_same_for_the_same_cases():
    first, second = (found(bodies(6, 0), bodies(4, 1)) for _ in range(2))

    assert {picture.file for picture in first.section.pictures} == set(first.pictures)
    assert all(Image.open(io.BytesIO(png)).format == "PNG" for png in first.pictures.values())
    assert (first.section, first.pictures) == (second.section, second.pictures)
