"""The request: who decides what, and that whatever is missing is said before a voxel is read."""

from pathlib import Path

import pytest

from medgen3d.artifacts.intensity import IntensityRule
from medgen3d.config.experiment import IngestConfig
from medgen3d.core.errors import ConfigError, DataError
from medgen3d.ingest.request import IngestRequest, make_request
from medgen3d.ingest.sources import Pair, Source

SOURCE = Source(
    root=Path("/data/liver"),
    name="Liver (subset)",
    modality="CT",
    labels={0: "background", 1: "from source"},
    pairs=[Pair(case=case, image=Path(case), mask=Path(case)) for case in ("p1_a", "p1_b", "p2_a")],
)


def requested(source: Source = SOURCE, config: IngestConfig | None = None, **choices: object) -> IngestRequest:
    given = {"name": None, "seed": 0, "labels_file": None, "patient_regex": None, "patients_csv": None} | choices
    return make_request(source, config or IngestConfig(), **given)


def test_the_source_decides_where_the_user_does_not():
    request = requested()
    assert (request.name, request.modality) == ("Liver_subset", "CT")
    assert request.labels.by_id == {0: "background", 1: "from source"}


def test_the_user_wins_over_the_source(tmp_path):
    config = IngestConfig(modality="MR", labels={1: "from config"})
    request = requested(config=config, name="mine")
    assert (request.name, request.modality, request.labels.by_id[1]) == ("mine", "MR", "from config")
    (tmp_path / "labels.json").write_text('{"1": "from file"}')
    assert requested(config=config, labels_file=tmp_path / "labels.json").labels.by_id[1] == "from file"


def test_without_labels_the_table_is_left_open():
    assert requested(SOURCE.model_copy(update={"labels": None})).labels is None


def test_an_unknown_modality_is_asked_for():
    with pytest.raises(ConfigError, match=r"CT or MR.*--set ingest\.modality=MR"):
        requested(SOURCE.model_copy(update={"modality": None}))


def test_each_case_is_its_own_patient_unless_the_user_says_more():
    assert requested().patients == {"p1_a": "p1_a", "p1_b": "p1_b", "p2_a": "p2_a"}
    assert not requested().patients_known
    by_regex = requested(patient_regex=r"^(p\d)_")
    assert by_regex.patients == {"p1_a": "p1", "p1_b": "p1", "p2_a": "p2"}
    assert by_regex.patients_known


def test_patients_given_twice_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="Give one of them"):
        requested(patient_regex="p", patients_csv=tmp_path / "patients.csv")


@pytest.mark.parametrize("name", ["a.b", "a/b", "a:b", "a b", "a@b"])
def test_a_name_that_the_registry_could_not_use_is_refused(name):
    with pytest.raises(ConfigError, match="may hold letters"):
        requested(name=name)


def test_labels_that_make_no_table_are_refused():
    with pytest.raises(DataError, match="at least one more label"):
        requested(SOURCE.model_copy(update={"labels": {0: "background"}}))


def test_the_rules_follow_from_the_request():
    config = IngestConfig(hu_window=(-100, 200), percentiles=(1, 99))
    rules = requested(config=config).rules
    assert rules.labels == (0, 1)
    assert rules.intensity == IntensityRule(kind="hu_window", low=-100, high=200)
    of_mr = requested(config=config.model_copy(update={"modality": "MR"})).rules
    assert of_mr.intensity == IntensityRule(kind="percentiles", low=1, high=99)
