import io

import numpy as np
import pytest
from PIL import Image

from medgen3d.artifacts.plots import (
    REAL_COLOUR,
    SYNTHETIC_COLOUR,
    histogram_grid,
    intensity_plot,
    label_volume_plot,
    spectrum_plot,
    usefulness_plot,
)


def columns_of(png, colour):
    """Where, from left to right, a picture holds exactly this colour."""
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    rgb = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    legend_height = 60
    return np.flatnonzero((picture[legend_height:] == rgb).all(axis=2).any(axis=0))


def test_smaller_synthetic_volumes_are_drawn_to_the_left_of_the_real_ones():
    png = label_volume_plot({"liver": [10.0, 10.0]}, {"liver": [5.0, 5.0]})

    assert columns_of(png, SYNTHETIC_COLOUR).max() < columns_of(png, REAL_COLOUR).min()


def test_brighter_intensities_are_drawn_to_the_right():
    dark, bright = np.zeros(64), np.zeros(64)
    dark[8], bright[50] = 1.0, 1.0
    png = intensity_plot(real=dark, synthetic=bright)
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    middle = picture[picture.shape[0] // 2]

    real = np.flatnonzero((middle == [0x56, 0xB4, 0xE9]).all(axis=1))
    synthetic = np.flatnonzero((middle == [0xE6, 0x9F, 0x00]).all(axis=1))
    assert real.max() < synthetic.min()


def test_plots_give_the_same_bytes_for_the_same_input_and_survive_labels_without_volume():
    volumes = {"a": [1.0, 2.0], "$b_": [0.0, 0.0]}
    assert label_volume_plot(volumes, volumes) == label_volume_plot(volumes, volumes)


def test_a_hundred_labels_make_a_taller_plot_not_a_denser_one():
    few = label_volume_plot({"a": [1.0]}, {"a": [1.0]})
    many = {f"label {index}": [1.0] for index in range(100)}

    assert Image.open(io.BytesIO(label_volume_plot(many, many))).height > 20 * Image.open(io.BytesIO(few)).height


def test_more_dice_is_drawn_higher_and_more_cases_further_to_the_right():
    png = usefulness_plot(real={5: [0.5], 20: [0.5]}, both={10: [0.8], 20: [0.8]}, synthetic={})
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))[60:]  # below the legend
    real, both = (np.argwhere((picture == colour).all(axis=2)) for colour in ([0x56, 0xB4, 0xE9], [0xE6, 0x9F, 0x00]))

    assert both[:, 0].max() < real[:, 0].min()
    assert real[:, 1].min() + 100 < both[:, 1].min()
    assert real[:, 1].max() == pytest.approx(both[:, 1].max(), abs=3)


def test_the_curve_is_drawn_with_a_single_size_too_and_synthetic_pairs_alone_add_to_it():
    without = usefulness_plot({8: [0.5]}, {8: [0.6]}, {})
    assert without == usefulness_plot({8: [0.5]}, {8: [0.6]}, {})
    assert without != usefulness_plot({8: [0.5]}, {8: [0.6]}, {8: [0.4]})


def grid_of(real, synthetic):
    return histogram_grid([[np.array(real)]], [[np.array(synthetic)]], ["$liver"], ["volume [ml]"])


def test_histograms_of_larger_synthetic_values_lie_to_the_right_of_the_real_ones():
    png = grid_of([10.0, 10.25, 10.5], [20.0, 20.25, 20.5])
    outlined = columns_of(png, SYNTHETIC_COLOUR)
    assert np.median(outlined) > columns_of(png, REAL_COLOUR).max() + 100


def test_histograms_have_one_panel_per_row_and_column_and_survive_a_measure_that_no_case_has():
    one = grid_of([1.0, 2.0], [1.0])
    numbers = np.array([1.0, 2.0])
    rows = [[numbers, np.array([])], [numbers, numbers], [numbers, numbers]]
    png = histogram_grid(rows, rows, ["a", "b", "c"], ["volume", "holes"])

    assert Image.open(io.BytesIO(png)).height > 2 * Image.open(io.BytesIO(one)).height
    assert png == histogram_grid(rows, rows, ["a", "b", "c"], ["volume", "holes"])


def test_a_spectrum_with_more_power_at_the_right_is_drawn_higher_there():
    flat, rising = np.full((2, 3, 16), -1.2), np.full((2, 3, 16), -1.2)
    rising[:, 0, 8:] = -0.5
    picture = np.asarray(Image.open(io.BytesIO(spectrum_plot(flat, rising, ("a", "b", "c")))).convert("RGB"))[60:]
    synthetic = (picture == [0xE6, 0x9F, 0x00]).all(axis=2)
    first_panel = np.flatnonzero(synthetic[:, : picture.shape[1] // 3].any(axis=1))
    third_panel = np.flatnonzero(synthetic[:, -picture.shape[1] // 3 :].any(axis=1))

    assert np.ptp(first_panel) > 10 * np.ptp(third_panel)  # the line has a step in the one and is level in the other
    assert third_panel.max() == pytest.approx(first_panel.max(), abs=2)


def test_spectra_of_cases_without_any_are_left_out_of_the_same_bytes():
    spectra = np.random.default_rng(0).normal(size=(4, 3, 16))
    with_gap = np.concatenate([spectra, np.full((1, 3, 16), np.nan)])
    assert spectrum_plot(spectra, spectra, "abc") == spectrum_plot(with_gap, spectra, "abc")
