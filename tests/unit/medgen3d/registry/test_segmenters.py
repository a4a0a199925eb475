import pytest

from medgen3d.core.errors import RegistryError
from medgen3d.registry.bundles import register_bundle
from medgen3d.registry.segmenters import find_segmenter
from medgen3d.registry.tracking import start_run

DATA, OTHER = ("knee", "d" * 64), ("knee", "f" * 64)


@pytest.fixture
def two(tracking, write_toy_bundle, tmp_path):
    """A registry with two segmenters of the same data."""
    for seed in range(2):
        run_id = start_run(tracking, "knee", "segmenter", tags={}, params={})
        register_bundle(tracking, write_toy_bundle(tmp_path / "bundle", "segmenter", seed, run_id, name="knee"))
    return tracking


def test_auto_means_the_newest_that_was_trained_on_exactly_these_data(two):
    assert find_segmenter(two, "auto", DATA).number == 2
    assert find_segmenter(two, "auto", OTHER) is None
    assert find_segmenter(two, "auto", None) is None


def test_one_that_is_named_may_come_from_any_data(two):
    assert find_segmenter(two, "knee@1", None).number == 1
    assert find_segmenter(two, "knee", OTHER).number == 2
    with pytest.raises(RegistryError, match="has no version or alias '3'"):
        find_segmenter(two, "knee@3", DATA)


def test_none_means_none(two):
    assert find_segmenter(two, "none", DATA) is None
