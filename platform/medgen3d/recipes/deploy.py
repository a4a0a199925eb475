"""A Serve config file: made of a configuration, checked for what Ray silently ignores, sent to a cluster and followed.

Ray takes unknown keys without a word, and its own `serve deploy` ends well for an application that never starts.
"""

import difflib
import time
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ValidationError

from medgen3d.config.experiment import ExperimentConfig
from medgen3d.config.load import SERVED_BY, load_config
from medgen3d.core.errors import ConfigError

_APPLICATION = "medgen3d"
_POLL_S = 0.5
Tell = Callable[[str], None]


def serve_file(config: ExperimentConfig) -> str:
    """The file that `medgen3d serve deploy` takes, as YAML, for a configuration."""
    parts = config.with_absolute_paths().model_dump(mode="json", include={"storage", "serving"})
    application = {"name": _APPLICATION, "route_prefix": "/", "import_path": SERVED_BY, "args": parts}
    http = {"host": config.serving.host, "port": config.serving.port}
    return yaml.safe_dump(
        {"proxy_location": "EveryNode", "http_options": http, "applications": [application]}, sort_keys=False
    )


def read_serve_file(path: Path) -> dict[str, Any]:
    """A Serve config file, every key and value of which is known to Ray or to us.

    Raises:
        ConfigError: It cannot be read, has an unknown key or a value that is not allowed, no application of ours, or
            says two things about where the service listens.
    """
    from ray.serve.schema import ServeDeploySchema

    config = load_config(path)  # checks the application's own part
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    if "applications" not in content:
        raise ConfigError(f"{path} is no Serve config file; `medgen3d serve config --config {path}` makes one of it")
    for unknown in unknown_keys(content, ServeDeploySchema):
        raise ConfigError(f"{path}: {unknown}")
    try:
        ServeDeploySchema.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    _check_ours(path, content, config)
    return content


def _check_ours(path: Path, content: dict[str, Any], config: ExperimentConfig) -> None:
    names = [each.get("name") for each in content["applications"] if each["import_path"] == SERVED_BY]
    if names != [_APPLICATION]:
        raise ConfigError(f"{path}: the application must be called {_APPLICATION}, got {names[0]}")
    if not config.storage.root.is_absolute():
        raise ConfigError(
            f"{path}: storage.root must be absolute, a folder that every machine sees; got {config.storage.root}"
        )
    said = content.get("http_options", {})
    for key, ours in (("host", config.serving.host), ("port", config.serving.port)):
        if said.get(key, ours) != ours:
            raise ConfigError(
                f"{path}: http_options.{key} is {said[key]}, but serving.{key} is {ours}; write one twice"
            )


def unknown_keys(tree: Any, model: type[BaseModel], above: str = "") -> Iterator[str]:
    """A sentence for each key that a pydantic model, or one below it, would silently ignore."""
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if key not in model.model_fields:
            near = difflib.get_close_matches(str(key), model.model_fields, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            yield f"unknown key '{above}{key}'{hint}; allowed here are {', '.join(model.model_fields)}"
            continue
        for below in _models(model.model_fields[key].annotation):
            for place, item in enumerate(value) if isinstance(value, list) else ((None, value),):
                yield from unknown_keys(item, below, f"{above}{key}." if place is None else f"{above}{key}.{place}.")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The one model that an annotation holds, through lists and optionals; none where it may be a free table."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    parts = [part for part in typing.get_args(annotation) if part is not type(None)]
    if not any(part is dict or typing.get_origin(part) is dict for part in parts):
        for part in parts:
            yield from _models(part)


def deploy(path: Path, address: str, timeout_s: float, tell: Tell) -> str:
    """Send a Serve config file to a running cluster, and wait until the service runs or has failed.

    Args:
        path: The file.
        address: Of the cluster's dashboard, such as http://127.0.0.1:8265.
        timeout_s: How long to wait [s].
        tell: Told each new state.

    Returns:
        The service's route on the cluster's HTTP port, such as `/`.

    Raises:
        ConfigError: The file is wrong, the cluster does not answer or refuses, or the service does not start; with the
            reason that the cluster gives.
    """
    content = read_serve_file(path)
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    try:
        client = ServeSubmissionClient(address)
        before = _application(client.get_serve_details()).get("last_deployed_time_s")
        client.deploy_applications(content)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = urlsplit(address).netloc or address
        raise ConfigError(
            f"the cluster at {where} did not take the service ({_first_line(error)}); check --address, that its "
            "dashboard runs, and RAY_AUTH_TOKEN if it asks for a token"
        ) from error
    return _followed(client, before, timeout_s, tell)


def _followed(client: Any, before: float | None, timeout_s: float, tell: Tell) -> str:
    end, shown = time.monotonic() + timeout_s, ""
    while time.monotonic() < end:
        found = _application(client.get_serve_details())
        state = found.get("status", "NOT_STARTED") if found.get("last_deployed_time_s") != before else "NOT_STARTED"
        if state != shown:
            tell(state)
            shown = state
        if state == "RUNNING":
            return str(found.get("route_prefix") or "/")
        if state in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise ConfigError(f"the service is {state}: {_reason(found)}")
        time.sleep(_POLL_S)
    raise ConfigError(f"the service is still {shown} after {timeout_s:.0f} s; `serve status` shows how it goes on")


def _application(details: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = details.get("applications", {}).get(_APPLICATION, {})
    return found


def _reason(found: dict[str, Any]) -> str:
    """The last line that says something, of the application or of the deployments that keep it from running."""
    messages = [each.get("message", "") for each in found.get("deployments", {}).values()]
    for message in (*messages, found.get("message", "")):
        lines = [line.strip() for line in message.splitlines() if "Error: " in line or "Error(" in line]
        if lines:
            return lines[-1]
    return _first_line(found.get("message") or "no reason given")


def _first_line(error: object) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
