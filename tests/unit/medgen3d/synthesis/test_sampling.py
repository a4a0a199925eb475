import pytest

from medgen3d.artifacts.bundle import read_bundle
from medgen3d.core.errors import ConfigError
from medgen3d.synthesis.sampling import options_changed, with_options


@pytest.fixture
def bundle(tiny_pipeline):
    """A refiner: channels (8, 16), sampling_steps 3, everything else as the defaults."""
    return read_bundle(tiny_pipeline["refiner"])


def test_named_options_of_sampling_win_and_all_others_stay_as_trained(bundle):
    used = with_options(bundle, {"start": 0.35, "fusion": "average"})
    config = used.config()

    assert (config.start, config.fusion) == (0.35, "average")
    assert (config.sampling_steps, config.channels) == (3, (8, 16))
    assert used.trained_stage().stage.config == config
    assert options_changed(bundle, used) == {"start": 0.35, "fusion": "average"}


def test_without_named_options_the_bundle_is_used_as_it_is(bundle):
    assert with_options(bundle, {}) is bundle
    assert options_changed(bundle, bundle) == {}


def test_options_that_say_what_the_bundle_says_change_nothing(bundle):
    # As when the file that a pipeline was trained with is given at synthesis too; 0.3 is the default that it took.
    used = with_options(bundle, {"channels": (8, 16), "sampling_steps": 3, "start": 0.3})
    assert used.info == bundle.info


def test_an_option_that_the_networks_depend_on_is_refused(bundle):
    with pytest.raises(ConfigError) as caught:
        with_options(bundle, {"start": 0.35, "channels": (8, 24)})
    text = str(caught.value)
    assert "refiner.channels is set to (8, 24), but the trained stage has (8, 16)" in text
    assert "only start, end, sampling_steps, guidance, fusion, slice_batch can be chosen" in text


def test_options_that_do_not_fit_the_trained_schedule_are_refused(bundle):
    # Its T is 1000: from 0.002 x 1000 = 2 steps there are no 3 to visit.
    with pytest.raises(ConfigError, match="refiner: sampling_steps must lie between 1 and 2, the steps from start"):
        with_options(bundle, {"start": 0.002, "end": 0.0})
