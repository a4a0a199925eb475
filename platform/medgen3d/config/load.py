"""Loading one checked configuration from presets, a YAML file and `--set a.b=c`; later sources win.

Every mistake is one sentence that names the key, what was found and what is allowed.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from medgen3d.config.experiment import CHAIN, ExperimentConfig
from medgen3d.core.errors import ConfigError

Tree = dict[str, Any]

SERVED_BY = "medgen3d.serving.on_ray.app:build"
"""`import_path` of our application in a Serve config file, whose `args` are a part of the tree."""
_PRESETS = files("medgen3d.config") / "presets"


def preset_names() -> list[str]:
    """The shipped presets, in alphabetical order."""
    return sorted(Path(entry.name).stem for entry in _PRESETS.iterdir() if entry.name.endswith(".yaml"))


def preset_text(name: str) -> str:
    """A preset's YAML with its comments.

    Raises:
        ConfigError: There is no such preset.
    """
    known = preset_names()
    if name not in known:
        raise ConfigError(f"unknown preset {name!r}{_nearest(name, known)}; there are {', '.join(known)}")
    return (_PRESETS / f"{name}.yaml").read_text()


def load_config(
    path: Path | None = None, presets: Sequence[str] = (), overrides: Sequence[str] = ()
) -> ExperimentConfig:
    """The defaults, then each preset, then the file, then each override; what comes later wins, key by key.

    Args:
        path: A YAML file with any part of the tree, or a Serve config file with our application.
        presets: Names of shipped presets.
        overrides: `section.key=value`, the value written as in YAML, such as `ingest.plane=[64, 48]`.

    Raises:
        ConfigError: An unreadable file, an unknown preset or key, or a value that is not allowed.
    """
    return _checked(_merged(path, presets, overrides))


def named_options(
    path: Path | None = None, presets: Sequence[str] = (), overrides: Sequence[str] = ()
) -> dict[str, Tree]:
    """What the same sources say of the stages that make a pair, without the defaults: {stage: {option: value}}.

    Raises:
        ConfigError: As `load_config`.
    """
    merged = _merged(path, presets, overrides)
    config = _checked(merged)
    return {
        stage: {option: getattr(getattr(config, stage), option) for option in merged[stage]}
        for stage in CHAIN
        if stage in merged
    }


def _merged(path: Path | None, presets: Sequence[str], overrides: Sequence[str]) -> Tree:
    merged: Tree = {}
    for preset in presets:
        _merge(merged, _parse(preset_text(preset), f"preset {preset}"))
    if path is not None:
        _merge(merged, _parse(_read(path), str(path)))
    for override in overrides:
        _merge(merged, _override(override))
    return merged


def _checked(tree: Tree) -> ExperimentConfig:
    try:
        return ExperimentConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from error


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise ConfigError(f"cannot read the configuration {path}: {reason}") from error


def _parse(text: str, origin: str) -> Tree:
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin} is not valid YAML: {' '.join(str(error).split())}") from error
    if isinstance(tree, dict) and "applications" in tree:
        tree = _served_part(tree["applications"], origin)
    if tree is None:
        return {}
    _check_keys(tree, ExperimentConfig, origin, "")
    return typing.cast(Tree, tree)


def _served_part(applications: Any, origin: str) -> Any:
    for application in applications if isinstance(applications, list) else []:
        if isinstance(application, dict) and application.get("import_path") == SERVED_BY:
            return application.get("args")
    raise ConfigError(f"{origin}: none of its applications has the import_path {SERVED_BY}")


def _override(text: str) -> Tree:
    dotted, equals, value = text.partition("=")
    if not equals or not dotted.strip():
        raise ConfigError(f"--set {text!r} is not of the form section.key=value, such as training.refiner.steps=100")
    try:
        tree = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"the value of --set {text!r} is not valid YAML") from error
    for key in reversed(dotted.strip().split(".")):
        tree = {key: tree}
    _check_keys(tree, ExperimentConfig, f"--set {text}", "")
    return typing.cast(Tree, tree)


def _keys(section: type) -> dict[str, Any]:
    """Key -> type of a section, which is a pydantic model or a stage's dataclass."""
    if issubclass(section, BaseModel):
        return {name: field.annotation for name, field in section.model_fields.items()}
    hints = typing.get_type_hints(section)
    return {field.name: hints[field.name] for field in dataclasses.fields(section)}  # type: ignore[arg-type]


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and (
        dataclasses.is_dataclass(annotation)
        or (not isinstance(annotation, types.GenericAlias) and issubclass(annotation, BaseModel))
    )


def _check_keys(tree: Any, section: type, origin: str, above: str) -> None:
    allowed = _keys(section)
    if not isinstance(tree, dict):
        where = f"{above.rstrip('.')!r}" if above else "the whole"
        raise ConfigError(
            f"{origin}: {where} must be a section with keys such as {next(iter(allowed))!r}, found {tree!r}"
        )
    for key, value in tree.items():
        if key not in allowed:
            near = _nearest(str(key), [above + name for name in allowed], above)
            raise ConfigError(f"{origin}: unknown key '{above}{key}'{near}; allowed here are {', '.join(allowed)}")
        if _is_section(allowed[key]):
            _check_keys(value, allowed[key], origin, f"{above}{key}.")
        elif _holds_bool(value) and not _takes_bool(allowed[key]):  # pydantic would take true for 1
            raise ConfigError(f"{origin}: {above}{key}: found {str(value).lower()}, expected a number, text or list")


def _holds_bool(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, list) and any(_holds_bool(each) for each in value))


def _takes_bool(annotation: Any) -> bool:
    return annotation is bool or any(_takes_bool(each) for each in typing.get_args(annotation))


def _merge(base: Tree, extra: Tree, section: type = ExperimentConfig) -> None:
    """Lay `extra` over `base` in place. Only sections merge; a value, even a table such as labels, is replaced."""
    for key, value in extra.items():
        annotation = _keys(section)[key]
        if _is_section(annotation):
            _merge(base.setdefault(key, {}), value, annotation)
        else:
            base[key] = value


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "value_error":  # raised by our own checks, which say what was found
        return f"{key}: {first['ctx']['error']}"
    if first["type"] == "missing":  # keys all have defaults, so only a tuple can lack something
        return f"{key.rpartition('.')[0]}: found {first['input']!r}, expected more values"
    expected = first["msg"].partition(", unable")[0].replace("Input should be", "expected")
    return f"{key}: found {first['input']!r}, {expected[0].lower()}{expected[1:]}"


def _nearest(found: str, allowed: Sequence[str], above: str = "") -> str:
    near = difflib.get_close_matches(above + found, allowed, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
