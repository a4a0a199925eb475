"""Splits: by patient, repeatable, and true to their shares even for few patients."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medgen3d.core.errors import ConfigError, DataError
from medgen3d.ingest.split import patients_by_regex, patients_from_csv, split_patients

SHARES = (0.7, 0.1, 0.2)


def counts(num_patients: int, shares: tuple[float, float, float] = SHARES) -> tuple[int, int, int]:
    found = Counter(split_patients({f"p{number}" for number in range(num_patients)}, shares, 0).values())
    return found["train"], found["validation"], found["test"]


@pytest.mark.parametrize(
    ("num_patients", "expected"),
    [
        (1, (1, 0, 0)),
        (2, (2, 0, 0)),  # 1.4, 0.2, 0.4: of equal remainders training comes first
        (3, (2, 0, 1)),  # 2.1, 0.3, 0.6
        (4, (3, 0, 1)),  # 2.8, 0.4, 0.8
        (10, (7, 1, 2)),
        (15, (11, 1, 3)),  # 10.5, 1.5, 3.0
        (200, (140, 20, 40)),
    ],
)
def test_shares_are_met_by_largest_remainders(num_patients, expected):
    assert counts(num_patients) == expected


def test_training_is_never_empty():
    assert counts(1, (0.1, 0.0, 0.9)) == (1, 0, 0)
    assert counts(3, (0.1, 0.3, 0.6)) == (1, 1, 1)


PATIENTS = st.sets(st.text(min_size=1, max_size=4), min_size=1, max_size=30)


@given(patients=PATIENTS, seed=st.integers(0, 2**31))
def test_every_patient_is_in_one_split_and_no_share_is_missed_by_a_patient(patients, seed):
    splits = split_patients(patients, SHARES, seed)
    assert set(splits) == patients
    found = Counter(splits.values())
    assert found["train"] >= 1
    for split, share in zip(("train", "validation", "test"), SHARES, strict=True):
        assert abs(found[split] - share * len(patients)) < 1


def test_the_split_depends_on_the_seed_and_on_nothing_else():
    patients = {f"p{number}" for number in range(50)}
    assert split_patients(patients, SHARES, 1) == split_patients(set(patients), SHARES, 1)
    assert split_patients(patients, SHARES, 1) != split_patients(patients, SHARES, 2)


def test_the_first_group_of_the_pattern_is_the_patient():
    assert patients_by_regex(["p01_a", "p01_b", "p2_a"], r"^(p\d+)_") == {"p01_a": "p01", "p01_b": "p01", "p2_a": "p2"}
    assert patients_by_regex(["x-12-pre", "x-12-post"], r"\d+") == {"x-12-pre": "12", "x-12-post": "12"}


def test_a_case_without_a_patient_is_named():
    with pytest.raises(DataError, match="in 1 of 2 case names, the first is other"):
        patients_by_regex(["p01_a", "other"], r"^(p\d+)_")


def test_a_pattern_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="not a regular expression"):
        patients_by_regex(["a"], "(")


def test_patients_are_read_from_csv(tmp_path):
    path = tmp_path / "patients.csv"
    path.write_text("\ufeffpatient,case,age\nP1,a,30\nP1,b,31\nP2,other,5\n", encoding="utf-8")
    assert patients_from_csv(["a", "b"], path) == {"a": "P1", "b": "P1"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("case,patient\na,P1\n", "names no patient for 1 of 2 cases, the first is b"),
        ("case,patient\na,P1\nb,\n", "the first is b"),
        ("name,patient\na,P1\nb,P1\n", "the first is a"),
        ("case,patient\na,P1\nb,P1\na,P2\n", "case a has two patients, P1 and P2"),
    ],
)
def test_a_csv_file_that_cannot_be_used_is_refused(tmp_path, text, sentence):
    path = tmp_path / "patients.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=sentence):
        patients_from_csv(["a", "b"], path)


def test_a_missing_csv_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        patients_from_csv(["a"], tmp_path / "patients.csv")
