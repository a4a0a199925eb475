import pytest

from medgen3d.artifacts.pipeline import Pipeline
from medgen3d.core.errors import RegistryError
from medgen3d.registry.pipeline import resolve_pipeline
from medgen3d.serving import offers
from medgen3d.serving.offers import Offers


@pytest.fixture
def registry(pipeline_of):
    """A registry whose champion can be changed: knee@champion and knee mean `registry.champion`."""

    class Registry:
        champion = 3
        asked = 0

        def resolve(self, reference: str) -> Pipeline:
            self.asked += 1
            which = reference.partition("@")[2] or "champion"
            if which not in ("champion", "3", "4"):
                raise RegistryError(f"no version {which}")
            return pipeline_of(self.champion if which == "champion" else int(which))

    return Registry()


def test_a_name_offers_all_its_versions(registry):
    offered = Offers(["knee"], registry.resolve)
    meant = {name: offered.find(name).loaded.reference for name in ("knee", "knee@champion", "knee@4")}
    assert meant == {"knee": "knee@3", "knee@champion": "knee@3", "knee@4": "knee@4"}
    assert [offer.loaded.reference for offer in offered.all()] == ["knee@3"]


def test_an_alias_offers_itself_and_the_version_that_it_means(registry):
    offered = Offers(["knee@champion"], registry.resolve)
    assert offered.find("knee").loaded.reference == offered.find("knee@3").loaded.reference == "knee@3"
    with pytest.raises(RegistryError, match="no pipeline 'knee@4' is offered here; offered are knee@champion"):
        offered.find("knee@4")
    with pytest.raises(RegistryError, match="'hip'"):
        offered.find("hip")


def test_a_job_ends_on_the_version_that_it_was_accepted_for(registry, monkeypatch):
    monkeypatch.setattr(offers, "FRESH_S", -1.0)
    offered = Offers(["knee@champion"], registry.resolve)
    assert offered.find("knee").loaded.version == 3
    registry.champion = 4
    assert offered.find("knee").loaded.version == 4
    with pytest.raises(RegistryError):
        offered.find("knee@3")
    assert offered.accepted("knee@3").loaded.version == 3


def test_a_version_offers_nothing_else(registry):
    offered = Offers(["knee@3"], registry.resolve)
    assert offered.find("knee").loaded.version == offered.find("knee@3").loaded.version == 3
    for other in ("knee@4", "knee@champion"):
        with pytest.raises(RegistryError, match="offered are knee@3"):
            offered.find(other)


def test_a_promoted_champion_is_noticed_after_a_while(registry, monkeypatch):
    offered = Offers(["knee@champion"], registry.resolve)
    offered.find("knee")
    registry.champion = 4
    assert offered.find("knee").loaded.version == 3  # the answer is still fresh
    assert registry.asked == 1
    monkeypatch.setattr(offers, "FRESH_S", -1.0)
    assert offered.find("knee").loaded.version == 4


def test_while_the_registry_is_away_what_is_known_goes_on_to_be_offered(registry, monkeypatch):
    offered = Offers(["knee"], registry.resolve)
    offered.find("knee")
    monkeypatch.setattr(offers, "FRESH_S", -1.0)

    def away(_: str) -> Pipeline:
        raise RegistryError("the registry at http://10.0.0.7:5000 does not answer")

    monkeypatch.setattr(offered, "_resolve", away)
    assert offered.find("knee").loaded.version == 3
    with pytest.raises(RegistryError) as refused:
        offered.find("knee@4")
    assert str(refused.value) == "there is no pipeline 'knee@4' now; see GET /v1/pipelines"


def test_a_pipeline_is_described_with_what_its_manifest_will_say(registry):
    loaded = Offers(["knee"], registry.resolve, batch=4, threads=2).find("knee").loaded
    assert (loaded.name, loaded.max_depth, loaded.batch, loaded.threads, loaded.device) == ("knee", 9, 4, 2, "cpu")
    assert len(loaded.config_hash) == 64
    assert {len(digest) for digest in loaded.weights_sha256.values()} == {64}


def test_a_builtin_pipeline_is_found_without_a_registry_and_has_its_card():
    loaded = Offers(["builtin/hippocampus"], lambda reference: resolve_pipeline(None, reference)).all()[0].loaded
    assert (loaded.reference, loaded.name) == ("builtin/hippocampus", "builtin/hippocampus")
    assert loaded.card.startswith("# ")
