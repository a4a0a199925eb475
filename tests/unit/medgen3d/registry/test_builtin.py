import subprocess
import sys

import pytest

from medgen3d.artifacts.pipeline import PinnedBundle, Pipeline, PipelineInfo, write_portable
from medgen3d.config.experiment import CHAIN
from medgen3d.core.errors import ArtifactError, RegistryError
from medgen3d.registry.builtin import describe_builtin, list_builtin, resolve_builtin
from medgen3d.registry.pipeline import resolve_pipeline
from medgen3d.registry.tracking import Tracking

CARD = "---\nlicence: CC-BY-SA-4.0\nsummary: Knees.\n---\n# Knee\n\nNot for diagnosis. --- \n"


@pytest.fixture
def root(tmp_path, write_toy_bundle):
    """A folder with one pipeline, `knee`."""
    bundles = {stage: write_toy_bundle(tmp_path / "registered" / stage, stage) for stage in CHAIN}
    pin = PinnedBundle(model="toy.stage", version=1, weights_sha256="0" * 64, dataset_digest="d" * 64)
    facts = {"dataset": "toy", "modality": "MR", "phantom": True, "labels": {0: "background", 3: "node"}}
    info = PipelineInfo(**facts, plane=(16, 8), spacing_mm=(2.0, 1.0, 1.0), stages=dict.fromkeys(CHAIN, pin))
    folder = tmp_path / "builtin" / "knee"
    write_portable(folder, Pipeline(name="toy", version=4, notice="", info=info, bundles=bundles), half=True)
    (folder / "card.md").write_text(CARD)
    return folder.parent


def test_a_built_in_pipeline_is_found_by_its_name_and_keeps_the_version_that_was_exported(root):
    pipeline = resolve_builtin("builtin/knee", root)
    assert (pipeline.name, pipeline.version, pipeline.notice) == ("builtin/knee", 4, "")
    assert pipeline.bundles == {stage: root / "knee" / stage for stage in CHAIN}


def test_the_list_says_what_the_card_and_the_description_say(root):
    (found,) = list_builtin(root)
    assert (found.name, found.facts.licence, found.facts.summary) == ("knee", "CC-BY-SA-4.0", "Knees.")
    assert found.card == "# Knee\n\nNot for diagnosis. --- \n"
    assert (found.info.labels, found.info.spacing_mm) == ({0: "background", 3: "node"}, (2.0, 1.0, 1.0))
    assert found.num_bytes == sum(path.stat().st_size for path in (root / "knee").rglob("*.*"))
    assert found == describe_builtin("knee", root)


def test_an_unknown_name_is_refused_with_a_list_of_what_there_is(root, tmp_path):
    for name in ("elbow", "knee@2", "..", "knee/refiner"):
        with pytest.raises(RegistryError, match=r"no pipeline .* is built in; there are knee"):
            resolve_builtin(f"builtin/{name}", root)
    with pytest.raises(RegistryError, match="there are none"):
        describe_builtin("knee", tmp_path / "absent")


@pytest.mark.parametrize(
    "card",
    [None, "# Knee", "# Knee\n---\nlicence: x\nsummary: y\n---\n", "---\nlicence: [\n---\n", "---\nlicence: x\n---\n"],
)
def test_a_card_without_its_facts_is_refused_by_name(root, card):
    (root / "knee" / "card.md").unlink()
    if card is not None:
        (root / "knee" / "card.md").write_text(card)
    with pytest.raises(ArtifactError, match=r"card\.md: found no valid model card"):
        describe_builtin("knee", root)


def test_a_reference_to_a_built_in_pipeline_asks_no_registry_and_makes_none(tmp_path):
    tracking = Tracking(uri=f"sqlite:///{tmp_path}/store/mlflow.db", artifact_root=tmp_path / "store")
    with pytest.raises(RegistryError, match="no pipeline 'elbow' is built in"):
        resolve_pipeline(tracking, "builtin/elbow")
    assert not (tmp_path / "store").exists()


def test_listing_loads_neither_mlflow_nor_torch():
    code = (
        "import sys; from medgen3d.registry.builtin import list_builtin; list_builtin(); "
        "assert not {'mlflow', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
