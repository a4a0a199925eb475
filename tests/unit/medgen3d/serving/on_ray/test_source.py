import pickle

import pytest

from medgen3d.config.experiment import StorageConfig
from medgen3d.core.errors import RegistryError
from medgen3d.registry.builtin import PREFIX
from medgen3d.serving.on_ray.source import Source, StageLoader

BUILT_IN = f"{PREFIX}hippocampus"


@pytest.fixture
def storage(tmp_path) -> StorageConfig:
    return StorageConfig(root=tmp_path)


def test_a_built_in_pipeline_means_itself_and_no_registry_is_made(storage, tmp_path):
    source = Source(storage, (BUILT_IN,))
    assert source.offered() == [BUILT_IN]
    assert source.pipeline(BUILT_IN).name == BUILT_IN
    assert source.meanings() == {}
    assert list(tmp_path.iterdir()) == []


def test_a_reference_keeps_its_meaning_until_it_is_given_another_one(storage):
    source = Source(storage, ("knee@champion",))
    source.settle("knee@champion", BUILT_IN)
    assert source.pipeline("knee@champion") is source.pipeline(BUILT_IN)
    assert source.meanings() == {"knee@champion": BUILT_IN}


def test_it_reaches_another_process_without_what_it_has_found(storage):
    source = Source(storage, (BUILT_IN,))
    source.settle("knee@champion", BUILT_IN)
    other = pickle.loads(pickle.dumps(source))
    assert other.meanings() == {}
    assert other.offered() == [BUILT_IN]


def test_an_unknown_built_in_pipeline_is_told(storage):
    with pytest.raises(RegistryError, match="no pipeline 'elbow' is built in"):
        Source(storage, ()).pipeline(f"{PREFIX}elbow")


def test_a_stage_is_loaded_ready_to_draw(storage):
    trained = StageLoader(Source(storage, ()), "refiner", "cpu")(BUILT_IN)
    assert trained.stage.name == "refiner"
    assert not trained.networks["denoiser"].training
