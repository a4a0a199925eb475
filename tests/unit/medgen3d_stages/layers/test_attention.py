import pytest

from medgen3d_stages.layers.attention import check_attention


def test_4096_positions_are_the_most_in_whichever_view():
    check_attention("refiner", (False, False, False, True), 1, [(512, 512), (200, 512)])
    with pytest.raises(
        ValueError, match=r"refiner: level 4 of 4 would attend over 65 x 64 positions of a plane of 520 x"
    ):
        check_attention("refiner", (False, False, False, True), 1, [(200, 512), (520, 512)])


def test_the_first_level_that_attends_decides():
    check_attention("mask_generator", (False, False, True), 2, [(256, 256)])
    with pytest.raises(
        ValueError, match=r"level 2 of 3 would attend over 128 x 64 positions .* larger mask_generator\.patch"
    ):
        check_attention("mask_generator", (False, True, True), 2, [(512, 256)])


def test_the_lowest_level_attends_even_if_it_is_not_asked_to():
    with pytest.raises(ValueError, match="level 2 of 2 would attend over 128 x 128 positions"):
        check_attention("refiner", (False, False), 2, [(512, 512)])
