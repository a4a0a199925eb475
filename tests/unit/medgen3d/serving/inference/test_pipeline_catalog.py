import pickle

import pytest

from medgen3d.artifacts.pipeline import Pipeline
from medgen3d.config.experiment import StorageConfig
from medgen3d.core.errors import RegistryError
from medgen3d.registry.builtin import PREFIX
from medgen3d.serving.inference.pipeline_catalog import PipelineCatalog, PipelineRegistry, StageLoader

BUILT_IN = f"{PREFIX}hippocampus"


@pytest.fixture
def registry(pipeline_of):
    """A registry whose champion can be changed: knee@champion and knee mean `registry.champion`."""

    class Registry:
        champion = 3
        asked = 0
        is_away = False

        def look_up(self, reference: str) -> str:
            self.asked += 1
            which = reference.partition("@")[2] or "champion"
            if self.is_away:
                raise RegistryError("the registry at http://10.0.0.7:5000 does not answer")
            if which not in ("champion", "3", "4"):
                raise RegistryError(f"no version {which}")
            return f"knee@{self.champion if which == 'champion' else which}"

        def resolve(self, pinned: str) -> Pipeline:
            return pipeline_of(int(pinned.partition("@")[2]))

    return Registry()


@pytest.fixture
def built_in(tmp_path) -> PipelineRegistry:
    return PipelineRegistry(StorageConfig(root=tmp_path))


def test_a_name_offers_all_its_versions(registry):
    catalog = PipelineCatalog(registry, ["knee"])
    meant = {name: catalog.find(name).reference for name in ("knee", "knee@champion", "knee@4")}
    assert meant == {"knee": "knee@3", "knee@champion": "knee@3", "knee@4": "knee@4"}
    assert [served.reference for served in catalog.all()] == ["knee@3"]


def test_an_alias_offers_itself_and_the_version_that_it_means(registry):
    catalog = PipelineCatalog(registry, ["knee@champion"])
    assert catalog.find("knee").reference == catalog.find("knee@3").reference == "knee@3"
    with pytest.raises(RegistryError, match="no pipeline 'knee@4' is offered here; offered are knee@champion"):
        catalog.find("knee@4")
    with pytest.raises(RegistryError, match="'hip'"):
        catalog.find("hip")


def test_a_version_offers_nothing_else(registry):
    catalog = PipelineCatalog(registry, ["knee@3"])
    assert catalog.find("knee").version == catalog.find("knee@3").version == 3
    for other in ("knee@4", "knee@champion"):
        with pytest.raises(RegistryError, match="offered are knee@3"):
            catalog.find(other)


def test_a_reference_keeps_its_meaning_until_it_is_given_another_one(registry):
    catalog = PipelineCatalog(registry, ["knee@champion"])
    assert catalog.find("knee").version == 3
    registry.champion = 4
    assert catalog.find("knee").version == 3
    assert registry.asked == 1
    assert catalog.look_up("knee@champion") == "knee@4"
    assert catalog.offered_versions() == ["knee@4"]
    catalog.settle("knee@champion", "knee@4")
    assert catalog.find("knee").version == 4
    assert catalog.meanings() == {"knee@champion": "knee@4"}


def test_a_job_ends_on_the_version_that_it_was_accepted_for(registry):
    catalog = PipelineCatalog(registry, ["knee@champion"])
    catalog.settle("knee@champion", "knee@4")
    with pytest.raises(RegistryError):
        catalog.find("knee@3")
    assert catalog.version("knee@3").version == 3


def test_while_the_registry_is_away_what_is_known_goes_on_to_be_offered(registry):
    catalog = PipelineCatalog(registry, ["knee"])
    catalog.find("knee")
    registry.is_away = True
    assert catalog.find("knee").version == 3
    with pytest.raises(RegistryError) as refused:
        catalog.find("knee@4")
    assert str(refused.value) == "there is no pipeline 'knee@4' now; see GET /v1/pipelines"


def test_a_pipeline_is_described_with_what_its_manifest_will_say(registry):
    served = PipelineCatalog(registry, ["knee"], batch=4, threads=2).find("knee")
    assert (served.name, served.max_depth, served.batch, served.threads, served.device) == ("knee", 9, 4, 2, "cpu")
    assert len(served.config_hash) == 64
    assert {len(digest) for digest in served.weights_sha256.values()} == {64}


def test_a_copy_in_another_process_starts_empty(built_in):
    catalog = PipelineCatalog(built_in, (BUILT_IN,), batch=4)
    catalog.settle("knee@champion", BUILT_IN)
    other = pickle.loads(pickle.dumps(catalog))
    assert other.meanings() == {}
    assert other.offered_versions() == [BUILT_IN]
    assert other.find(BUILT_IN).batch == 4


def test_a_built_in_pipeline_is_found_without_a_registry_and_has_its_card(built_in, tmp_path):
    catalog = PipelineCatalog(built_in, (BUILT_IN,))
    (served,) = catalog.all()
    assert (served.reference, served.name) == (BUILT_IN, BUILT_IN)
    assert served.card.startswith("# ")
    assert catalog.meanings() == {}
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_built_in_pipeline_is_told(built_in):
    with pytest.raises(RegistryError, match="no pipeline 'elbow' is built in"):
        PipelineCatalog(built_in, ()).pipeline(f"{PREFIX}elbow")


def test_a_stage_is_loaded_ready_to_draw(built_in):
    trained = StageLoader(PipelineCatalog(built_in, ()), "refiner", "cpu")(BUILT_IN)
    assert trained.stage.name == "refiner"
    assert not trained.networks["denoiser"].training
