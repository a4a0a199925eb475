"""Options that several commands share: single ones, and groups that a command takes as one typed object."""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medgen3d import console

if TYPE_CHECKING:
    from medgen3d.config.experiment import ExperimentConfig

Overrides = Annotated[list[str] | None, typer.Option("--set", help="section.key=value; may be repeated.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check the input and say what would be done; write nothing.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Also show what is logged, by Ray's workers as well.")]


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfigOptions:
    """The options that make a configuration."""

    config: Annotated[Path | None, typer.Option("--config", help="YAML file with any part of the configuration.")] = (
        None
    )
    preset: Annotated[
        list[str] | None, typer.Option("--preset", help="Shipped preset; may be repeated, later ones win.")
    ] = None
    override: Overrides = None

    def load(self, *more: str) -> "ExperimentConfig":
        """The configuration.

        Args:
            more: ConfigOptions as of `--set`, from options of the command's own; they win.

        Raises:
            ConfigError: A file, preset, key or value is wrong.
        """
        from medgen3d.config.load import load_config

        return load_config(self.config, self.preset or [], [*(self.override or []), *more])

    def of_stages(self) -> dict[str, dict[str, Any]]:
        """What the options say of the stages that make a pair, without the defaults: {stage: {option: value}}."""
        from medgen3d.config.load import named_options

        return named_options(self.config, self.preset or [], self.override or [])


@dataclass(frozen=True, kw_only=True, slots=True)
class RayOptions(ConfigOptions):
    """The options of a command that works long, on Ray."""

    address: Annotated[
        str | None,
        typer.Option(envvar="RAY_ADDRESS", help="Ray cluster, such as 10.0.0.5:6379; by default one on this machine."),
    ] = None
    dry_run: DryRun = False
    verbose: Verbose = False

    def begin(self, *more: str) -> "ExperimentConfig":
        """As `load`, and what is logged from now on is shown as far as `--verbose` says."""
        config = self.load(*more)
        console.begin_logging(verbose=self.verbose)
        return config

    @contextmanager
    def on_ray(self) -> Iterator[console.Show]:
        """Ray, started or connected to, for the duration of the block; yields what shows how far the work is.

        Raises:
            ConfigError: No cluster answers at the address, or it refuses us.
            StartTimeoutError: Ray did not start in time.
        """
        from medgen3d.recipes.cluster import connect

        with connect(self.address, verbose=self.verbose), console.progress() as show:
            yield show


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A command for typer made of one that takes option groups.

    Typer knows single options only, so each field of a group is one, where the group stands in the signature.
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {
        name: each.annotation for name, each in signature.parameters.items() if is_dataclass(each.annotation)
    }

    @functools.wraps(command)
    def flat(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    parameters: list[inspect.Parameter] = []
    for name, each in signature.parameters.items():
        parameters += inspect.signature(groups[name], eval_str=True).parameters.values() if name in groups else [each]
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    flat.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return flat
