import hashlib
from datetime import UTC, datetime, timedelta

import pytest

import medgen3d
from medgen3d.artifacts.provenance import Provenance, config_hash, library_versions


def make(**changes: object) -> Provenance:
    return Provenance(
        **{"dataset_name": "hippo", "dataset_digest": "d" * 64, "config_hash": "c" * 64, "seed": 7} | changes
    )


def test_config_hash_is_sha256_of_compact_json_with_sorted_keys():
    assert config_hash({"b": 2, "a": [1, None]}) == hashlib.sha256(b'{"a":[1,null],"b":2}').hexdigest()


def test_config_hash_depends_on_values_alone_not_on_key_order_or_on_tuples_against_lists():
    assert config_hash({"x": (1, 2), "y": {"p": 1, "q": 2}}) == config_hash({"y": {"q": 2, "p": 1}, "x": [1, 2]})
    assert config_hash({"x": [1, 2]}) != config_hash({"x": [2, 1]})
    assert config_hash({"x": 1}) != config_hash({"x": "1"})


@pytest.mark.parametrize(("value", "error"), [(float("nan"), ValueError), (object(), TypeError)])
def test_config_hash_refuses_what_json_cannot_say(value, error):
    with pytest.raises(error):
        config_hash({"x": value})


def test_provenance_is_stamped_with_the_time_in_utc_the_code_and_the_libraries():
    stamped = make()
    assert abs(datetime.now(UTC) - stamped.created) < timedelta(seconds=60)
    assert stamped.model_dump(mode="json")["created"].endswith("Z")
    assert stamped.code_version.split("+")[0] == medgen3d.__version__
    assert stamped.versions == library_versions()
    assert set(stamped.versions) == {"torch", "monai", "ray"}


def test_provenance_survives_json():
    stamped = make(parent_run="abc")
    assert Provenance.model_validate_json(stamped.model_dump_json()) == stamped


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="timezone"):
        make(created="2026-01-01T00:00:00")
