"""The split: the patient of each case, and the patients that are trained on, validated on and tested on."""

import csv
import re
from pathlib import Path

from medgen3d.artifacts.prepared_set import Split
from medgen3d.core.errors import ConfigError, DataError
from medgen3d.core.seeds import stream_seed

SPLITS: tuple[Split, Split, Split] = ("train", "validation", "test")


def patients_by_regex(cases: list[str], pattern: str) -> dict[str, str]:
    """Patient of each case: the first group of the pattern in the case's name, or all that it matches.

    Raises:
        ConfigError: The pattern is not valid.
        DataError: It matches nothing in some case's name.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--patient-regex {pattern!r} is not a regular expression: {error}") from error
    found = {case: compiled.search(case) for case in cases}
    patients = {case: match[1 if compiled.groups else 0] or "" for case, match in found.items() if match}
    unnamed = [case for case in cases if not patients.get(case)]
    if unnamed:
        raise DataError(
            f"--patient-regex {pattern!r} finds no patient in {len(unnamed)} of {len(cases)} case names, the first "
            f"is {unnamed[0]}. Give a pattern that matches every case."
        )
    return patients


def patients_from_csv(cases: list[str], path: Path) -> dict[str, str]:
    """Patient of each case, from a CSV file with the columns `case` and `patient`; further cases are ignored.

    Raises:
        DataError: The file cannot be read, lacks a column or a case, or names two patients for one case.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [(row.get("case") or "", row.get("patient") or "") for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}. Give a CSV file with the columns case,patient.") from error
    patients: dict[str, str] = {}
    for case, patient in rows:
        if patients.setdefault(case, patient) != patient:
            raise DataError(f"{path}: case {case} has two patients, {patients[case]} and {patient}. Keep one of them.")
    missing = [case for case in cases if not patients.get(case)]
    if missing:
        raise DataError(
            f"{path} names no patient for {len(missing)} of {len(cases)} cases, the first is {missing[0]}. "
            "Expected the columns case,patient and a row for every case."
        )
    return {case: patients[case] for case in cases}


def split_patients(patients: set[str], shares: tuple[float, float, float], seed: int) -> dict[str, Split]:
    """The split of each patient.

    Patients are ranked by SHA-256(seed, patient) and the ranking is cut by the shares, so that the shares are met
    even by few patients. Each split gets the whole part of its share; patients that remain go one each to the
    largest remainders, first to training where these are equal. If training would be empty, it takes one patient
    from the larger of the others.
    """
    ranking = sorted(patients, key=lambda patient: (stream_seed(seed, "split", patient), patient))
    ends = [0]
    for count in _counts(len(ranking), shares):
        ends.append(ends[-1] + count)
    return {
        patient: split
        for split, start, end in zip(SPLITS, ends, ends[1:], strict=False)
        for patient in ranking[start:end]
    }


def _counts(num_patients: int, shares: tuple[float, float, float]) -> list[int]:
    exact = [num_patients * share for share in shares]
    counts = [int(count + 1e-9) for count in exact]  # shares are decimal: 0.7 * 10 must not fall short of 7
    remainders = [round(wanted - count, 6) for wanted, count in zip(exact, counts, strict=True)]
    by_remainder = sorted(range(3), key=lambda index: (-remainders[index], index))
    for index in by_remainder[: num_patients - sum(counts)]:
        counts[index] += 1
    if num_patients and not counts[0]:
        counts[counts.index(max(counts))] -= 1
        counts[0] = 1
    return counts
