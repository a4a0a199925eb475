"""A run in MLflow: begun on the driver, written from any process that knows its id.

Only `MlflowClient` is used. The fluent functions keep a current run per process and start stray runs in workers.
"""

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal, Self
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from sqlalchemy.exc import SQLAlchemyError

from medgen3d.config.experiment import StorageConfig
from medgen3d.core.errors import ConfigError, RegistryError

PARENT_TAG = "mlflow.parentRunId"
_PARAMS_PER_CALL = 100  # MLflow's limit
_ANSWER_TIMEOUT_S = 10
Status = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tracking:
    """Where runs and registered models live; goes into every process as it is.

    uri: `sqlite:///` and an absolute path, or the address of an MLflow server; credentials stay in the environment.
    artifact_root: Folder of the artifacts of a SQLite registry, and of what is downloaded from a server.
    """

    uri: str
    artifact_root: Path

    def __post_init__(self) -> None:
        parts = urlsplit(self.uri)
        if parts.scheme not in ("sqlite", "http", "https"):
            raise ConfigError(
                f"a tracking URI begins with sqlite:///, http:// or https://, got the scheme {parts.scheme!r}; "
                "for another database run `mlflow server` in front of it"
            )
        if self.local and not self.uri.startswith("sqlite:////"):
            raise ConfigError(
                f"the tracking URI {self.uri} would mean another file in every process; write sqlite:/// and then the "
                "database's absolute path"
            )
        if parts.username or parts.password:
            raise ConfigError(
                f"the tracking URI of {parts.hostname} holds credentials, which end up in logs; take them out and "
                "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            )

    @classmethod
    def of(cls, storage: StorageConfig) -> Self:
        """The configured server, else the one that MLFLOW_TRACKING_URI names, else SQLite below the storage root."""
        uri = storage.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or storage.mlflow_uri
        return cls(uri=uri, artifact_root=storage.artifacts_dir)

    @property
    def local(self) -> bool:
        return self.uri.startswith("sqlite:")

    def client(self) -> MlflowClient:
        """A client of this registry and no other, whatever MLflow's process-wide settings are."""
        return _client(self.uri)

    def require_answer(self) -> None:
        """Fail at once, not after the minutes that MLflow would go on trying, when a server is not there.

        For the first call of a command; a training under way is better served by patience.

        Raises:
            RegistryError: Nothing answers at the address.
        """
        if self.local:
            return
        try:
            urlopen(f"{self.uri.rstrip('/')}/health", timeout=_ANSWER_TIMEOUT_S).close()
        except HTTPError:
            pass  # an answer, if only from a proxy in front of the server
        except OSError as error:
            raise RegistryError(
                f"no MLflow server answers at {self.uri} ({error}); start it, or correct storage.tracking_uri or "
                "MLFLOW_TRACKING_URI"
            ) from error


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn what MLflow raises into one sentence that survives pickling between processes.

    Raises:
        RegistryError: MLflow refused, or did not answer.
    """
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RegistryError(f"MLflow at {uri} failed: {reason}") from error


@contextmanager
def existing_is_fine() -> Iterator[None]:
    """Let a creation pass that another process was faster with."""
    try:
        yield
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise


def start_run(
    tracking: Tracking,
    experiment: str,
    name: str,
    tags: Mapping[str, str],
    params: Mapping[str, object],
    parent: str | None = None,
) -> str:
    """Begin a run and return its id; the experiment is created when it is new.

    Args:
        tracking: Where.
        experiment: The data set's name, so that everything made from it lies together.
        name: What the run is called in the list.
        tags: Free facts.
        params: The configuration; nested mappings become `a.b.c`.
        parent: Id of the run that this one belongs to.

    Raises:
        RegistryError: MLflow refused, or does not answer.
    """
    tracking.require_answer()
    with explained(tracking.uri):
        client = tracking.client()
        experiment_id = _experiment(client, tracking, experiment)
        nesting = {PARENT_TAG: parent} if parent else {}
        run_id: str = client.create_run(experiment_id, run_name=name, tags={**tags, **nesting}).info.run_id
        flat = [Param(key, str(value)) for key, value in _flatten(params)]
        for first in range(0, len(flat), _PARAMS_PER_CALL):
            client.log_batch(run_id, params=flat[first : first + _PARAMS_PER_CALL])
    return run_id


def now_ms() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return int(time.time() * 1000)


@dataclass(frozen=True, slots=True)
class RunLog:
    """Writes to a run from any process; holds no connection and pickles as two strings.

    Every method raises RegistryError when MLflow refuses or does not answer.
    """

    tracking_uri: str
    run_id: str

    def metrics(self, step: int, values: Mapping[str, float], at_ms: int | None = None) -> None:
        """Log the numbers of one step in one call; they were measured at `at_ms` [ms since 1970], by default now."""
        when = now_ms() if at_ms is None else at_ms
        metrics = [Metric(name, float(value), when, step) for name, value in values.items()]
        with explained(self.tracking_uri):
            _client(self.tracking_uri).log_batch(self.run_id, metrics=metrics)

    def image(self, name: str, png: bytes, step: int) -> None:
        """Log a picture, given as a PNG file's bytes; MLflow shows the steps of one name as a series."""
        from PIL import Image

        with explained(self.tracking_uri), Image.open(BytesIO(png)) as picture:
            _client(self.tracking_uri).log_image(self.run_id, picture, key=name, step=step, synchronous=True)

    def artifact(self, path: Path) -> None:
        """Upload a file."""
        with explained(self.tracking_uri):
            _client(self.tracking_uri).log_artifact(self.run_id, str(path))

    def reopen(self) -> None:
        """Say that a run that had ended is going on."""
        with explained(self.tracking_uri):
            _client(self.tracking_uri).update_run(self.run_id, "RUNNING")

    def finish(self, status: Status) -> None:
        with explained(self.tracking_uri):
            _client(self.tracking_uri).set_terminated(self.run_id, status)


def _client(uri: str) -> MlflowClient:
    if not uri.startswith("sqlite:"):
        return MlflowClient(uri, uri)
    database = Path(uri.removeprefix("sqlite:///"))
    database.parent.mkdir(parents=True, exist_ok=True)
    # MLflow makes missing tables without looking whether another process is just doing that.
    with database.with_name(database.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return MlflowClient(uri, uri)


def _experiment(client: MlflowClient, tracking: Tracking, name: str) -> str:
    # A server knows where its artifacts go; MLflow's default for SQLite would be ./mlruns of whoever comes first.
    location = (tracking.artifact_root / name).absolute().as_uri() if tracking.local else None
    if client.get_experiment_by_name(name) is None:
        with existing_is_fine():
            client.create_experiment(name, artifact_location=location)
    experiment = client.get_experiment_by_name(name)
    return experiment.experiment_id


def _flatten(params: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in params.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
