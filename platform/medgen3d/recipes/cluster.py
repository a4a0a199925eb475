"""The one place that starts Ray or connects to it."""

import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from medgen3d.config.experiment import ExperimentConfig
from medgen3d.core.errors import ConfigError, StartTimeoutError

_LOCAL_CPUS = 8  # logical slots: pools of actors take fractions of them and would starve on a laptop's two
_TIMEOUT_S = 10.0


@contextmanager
def connect(address: str | None = None, *, verbose: bool = False) -> Iterator[None]:
    """A Ray cluster for the duration of the block.

    An existing connection of this process is used as it is.

    Args:
        address: Of a running cluster, such as `ray://head:10001` or `10.0.0.5:6379`; None starts one on this machine
            and stops it at the end.
        verbose: Show what Ray and the workers log.

    Raises:
        ConfigError: No cluster answers at the address, or it refuses us.
        StartTimeoutError: A cluster on this machine did not start in time.
    """
    if address is None:
        _prepare_local_environment()
    else:
        _check_reachable(address)
    if not verbose:
        os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # errors reach us as exceptions
    import ray  # not before: it reads the environment

    if ray.is_initialized():
        yield
        return
    options = {"log_to_driver": verbose, "logging_level": "INFO" if verbose else "ERROR"}
    with nullcontext() if verbose else _without_stderr():
        if address is None:
            _start(options)
        else:
            _join(address, options)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Nothing on stderr, where the core of Ray would say, past Python's logging, that it takes the log level."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _start(options: dict[str, Any]) -> None:
    import ray

    begun = time.monotonic()
    try:
        ray.init(address="local", num_cpus=max(_LOCAL_CPUS, os.cpu_count() or 1), include_dashboard=False, **options)
    except Exception as error:  # Ray raises no narrower one
        if "timed out" not in str(error).lower():
            raise
        remedy = "the machine may be busy: try again, or raise RAY_raylet_start_wait_time_s"
        raise StartTimeoutError("Ray", time.monotonic() - begun, remedy) from error


def _join(address: str, options: dict[str, Any]) -> None:
    import ray

    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ray.exceptions.AuthenticationError) as error:
        raise ConfigError(
            f"the Ray cluster at {address} refused the connection; check that it runs the same Ray version "
            f"({ray.__version__}) and that RAY_AUTH_TOKEN or ~/.ray/auth_token holds its token"
        ) from error


def _check_reachable(address: str) -> None:
    """Ask the port ourselves: Ray would try for ten minutes."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"--address {address!r} is not of the form host:port, ray://host:port or auto")
    try:
        socket.create_connection((host, int(port)), timeout=_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"no Ray cluster answers at {address} ({error}); check --address and RAY_ADDRESS, "
            "or leave both out to start one on this machine"
        ) from error


def settle_gpus(config: ExperimentConfig) -> ExperimentConfig:
    """The configuration with every `use_gpu: null` decided by what the connected cluster has now."""
    import ray

    num_gpus = ray.cluster_resources().get("GPU", 0)
    cluster, synthesis, usefulness = config.cluster, config.synthesis, config.usefulness
    if cluster.use_gpu is None:
        cluster = cluster.model_copy(update={"use_gpu": num_gpus >= cluster.num_workers})
    if synthesis.use_gpu is None:
        num_actors = sum(synthesis.num_actors.model_dump().values())
        synthesis = synthesis.model_copy(update={"use_gpu": num_gpus >= num_actors * synthesis.gpus_per_actor})
    if usefulness.use_gpu is None:
        usefulness = usefulness.model_copy(update={"use_gpu": num_gpus >= usefulness.gpus_per_trial})
    return config.model_copy(update={"cluster": cluster, "synthesis": synthesis, "usefulness": usefulness})


def _prepare_local_environment() -> None:
    # Ray's ports are open to the network, so a local cluster keeps token authentication. A token of this process alone
    # spares Ray from writing one into the home folder, where every user could read it.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Half a minute, Ray's own choice, is too short on a busy machine.
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "90")
    # Serve kills an HTTP proxy that is slow to start, and the start of the service with it; busy machines are slow.
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")  # each report to Ray Train waits for one interval
    # A process per run that asks whether a machine of the cluster is about to be taken away: this one is the only one.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
