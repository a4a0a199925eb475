import pytest

from medgen3d_stages.catalogue import STAGE_NAMES, config_type, make_stage
from medgen3d_stages.contract import DataSpec


def test_the_stages_are_named_in_the_order_of_the_chain():
    assert STAGE_NAMES == ("mask_generator", "image_sequence_generator", "refiner", "segmenter")


@pytest.mark.parametrize("name", STAGE_NAMES)
def test_a_stage_is_made_from_its_name_its_default_config_and_a_data_spec(name):
    config = config_type(name)()
    stage = make_stage(name, config, DataSpec(num_labels=2, plane=(8, 8), spacing_mm=(1.0, 1.0, 1.0), max_depth=3))
    assert (stage.name, stage.config) == (name, config)
    trained = [network for networks in stage.turns.values() for network in networks]
    assert len(trained) == len(set(trained))  # a network belongs to one turn
    assert set(stage.sampled) <= set(trained)


def test_an_unknown_stage_is_refused():
    with pytest.raises(KeyError, match="segmentor"):
        config_type("segmentor")
