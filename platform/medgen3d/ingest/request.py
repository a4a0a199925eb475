"""The request: all that a user asks of a data set, checked before a voxel is read, so that errors come at once."""

import re
from dataclasses import dataclass
from pathlib import Path

from medgen3d.artifacts.intensity import IntensityRule, Modality
from medgen3d.config.experiment import IngestConfig
from medgen3d.core.errors import ConfigError, DataError
from medgen3d.core.labels import LabelTable
from medgen3d.ingest.descriptions import read_labels
from medgen3d.ingest.sources import Source
from medgen3d.ingest.split import patients_by_regex, patients_from_csv
from medgen3d.ingest.verify import Rules

_IGNORE = "ignore"
"""nnU-Net's reserved name of voxels that nobody labelled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestRequest:
    """A source and everything that the user chose about it.

    labels: None where the ids found shall be declared.
    ignored: Id of voxels that nobody labelled.
    patients: Patient of each case; the case itself where `patients_known` is off.
    """

    source: Source
    config: IngestConfig
    name: str
    seed: int
    modality: Modality
    labels: LabelTable | None
    ignored: int | None
    patients: dict[str, str]
    patients_known: bool

    @property
    def intensity(self) -> IntensityRule:
        """How each image is brought into [-1, 1]."""
        return IntensityRule.of(self.modality, self.config.hu_window, self.config.percentiles)

    @property
    def rules(self) -> Rules:
        """What each case is held to."""
        labels = self.labels.original_ids if self.labels else None
        return Rules(labels=labels, ignored=self.ignored, intensity=self.intensity)


def make_request(
    source: Source,
    config: IngestConfig,
    *,
    name: str | None,
    seed: int,
    labels_file: Path | None,
    patient_regex: str | None,
    patients_csv: Path | None,
) -> IngestRequest:
    """Complete a source by the user's choices; these win over what the source declares.

    Args:
        source: What was listed.
        config: Its `labels` win over the source's.
        name: Of the data set; by default the source's.
        seed: Of the split.
        labels_file: JSON {id: name}; wins over all other labels.
        patient_regex: Finds the patient in a case's name.
        patients_csv: Names the patient of each case.

    Raises:
        ConfigError: The name is not valid, no modality is given, or patients are given twice.
        DataError: The labels or the patients are not valid.
    """
    modality = config.modality or source.modality
    if modality is None:
        raise ConfigError(
            f"{source.root} does not say whether its images are CT or MR. Set ingest.modality, "
            "for example with --set ingest.modality=MR."
        )
    if patient_regex and patients_csv:
        raise ConfigError("patients are given by --patient-regex and by a CSV file. Give one of them.")
    declared = read_labels(labels_file) if labels_file else config.labels or source.labels
    labels, ignored = _table_of(declared) if declared else (None, None)
    cases = [pair.case for pair in source.pairs]
    if patient_regex:
        patients = patients_by_regex(cases, patient_regex)
    elif patients_csv:
        patients = patients_from_csv(cases, patients_csv)
    else:
        patients = {case: case for case in cases}
    return IngestRequest(
        source=source,
        config=config,
        name=_valid_name(name) if name else re.sub(r"[^A-Za-z0-9_-]+", "_", source.name).strip("_") or "dataset",
        seed=seed,
        modality=modality,
        labels=labels,
        ignored=ignored,
        patients=patients,
        patients_known=bool(patient_regex or patients_csv),
    )


def _table_of(declared: dict[int, str]) -> tuple[LabelTable, int | None]:
    """The labels, and the id that nnU-Net's reserved name marks as not labelled."""
    ignored = [label_id for label_id, name in declared.items() if name == _IGNORE]
    misplaced = [label_id for label_id, name in declared.items() if name == "background" and label_id]
    if len(ignored) > 1 or 0 in ignored or misplaced:
        wrong = misplaced or ignored
        raise DataError(
            f"the labels name the id {wrong[0]} {declared[wrong[0]]!r}; expected 'background' for the id 0 alone, and "
            f"{_IGNORE!r} for one other id at most. Correct the labels."
        )
    table = LabelTable.from_mapping({label_id: name for label_id, name in declared.items() if name != _IGNORE})
    return table, ignored[0] if ignored else None


def _valid_name(name: str) -> str:
    """Names of models in the registry begin with it, so that dots, slashes and colons would be ambiguous there."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ConfigError(f"the data set's name {name!r} may hold letters, digits, '_' and '-' only.")
    return name
