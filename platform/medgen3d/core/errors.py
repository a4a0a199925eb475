"""The errors a user can meet: one sentence each, whose facts are the exception's `args`.

Facts in `args` (and not in attributes set by `__init__`) survive the pickling between Ray processes, so the
sentence that a worker raised is the sentence that the person at the command line reads.
"""


class Medgen3dError(Exception):
    """Anything a user can mend. The command line prints `str(error)` and exits with 2; no traceback."""


class ConfigError(Medgen3dError):
    """A configuration value is unknown or out of range. args: (what is wrong and what is allowed,)."""


class DataError(Medgen3dError):
    """A file or a data set cannot be used as it is. args: (the whole sentence,)."""


class FileError(DataError):
    """One file is missing, damaged or of the wrong kind. args: (path, found, expected, remedy)."""

    def __str__(self) -> str:
        path, found, expected, remedy = self.args
        return f"{path}: found {found}, expected {expected}. {remedy}"


class ArtifactError(FileError):
    """A file written by medgen3d is missing, damaged or of another version. args: (path, found, expected, remedy)."""


class VolumeFileError(FileError):
    """A user's volume (NIfTI file or DICOM series) cannot be read. args: (path, found, expected, remedy)."""


class RegistryError(Medgen3dError):
    """A name, version or alias cannot be resolved, or bundles do not fit together. args: (the whole sentence,)."""


class StartTimeoutError(Medgen3dError):
    """A service did not start in time; the command line exits with 1. args: (what, seconds waited, what to do)."""

    def __str__(self) -> str:
        what, seconds, remedy = self.args
        return f"{what} did not start within {seconds:.0f} s; {remedy}"
