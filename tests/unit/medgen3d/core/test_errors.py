"""Errors: one sentence, which survives the way between processes."""

import pickle

import pytest

from medgen3d.core.errors import ArtifactError, ConfigError, DataError, Medgen3dError, RegistryError, VolumeFileError

FACTS = ("a/dataset.yaml", "version 9", "version 1", "Run ingest again.")


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("steps must be at least 1, got 0"),
        DataError("no cases"),
        ArtifactError(*FACTS),
        VolumeFileError(*FACTS),
        RegistryError("no such name"),
    ],
)
def test_an_error_says_the_same_after_pickling(error):
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, Medgen3dError)
    assert (type(copy), str(copy), copy.args) == (type(error), str(error), error.args)


def test_a_file_error_names_file_finding_expectation_and_remedy():
    assert str(ArtifactError(*FACTS)) == "a/dataset.yaml: found version 9, expected version 1. Run ingest again."
