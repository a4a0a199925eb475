"""Commands of the HTTP service: who may use it, and asking it for pairs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from medgen3d import console
from medgen3d.cli.options import ConfigFile, Overrides, Presets, configuration
from medgen3d.core.errors import ConfigError, DataError

TOKEN_VARIABLE = "MEDGEN3D_TOKEN"

tokens_app = typer.Typer(no_args_is_help=True, epilog="Example: medgen3d tokens create anna --days 90")
ServiceUrl = Annotated[str, typer.Option("--url", envvar="MEDGEN3D_URL", help="Address of the service.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.add_typer(tokens_app, name="tokens", help="Make, list and revoke the tokens of the HTTP service.")
    app.command(epilog="Example: medgen3d request --pipeline builtin/hippocampus --count 2")(request)


@tokens_app.command("create", epilog="Example: medgen3d tokens create anna --scope synthesize --days 90")
def tokens_create(
    owner: Annotated[str, typer.Argument(metavar="OWNER", help="To whom jobs belong; may have several tokens.")],
    scope: Annotated[list[str] | None, typer.Option(help="synthesize (the default) or admin; may be repeated.")] = None,
    days: Annotated[float | None, typer.Option(help="Time until it expires; by default never.")] = None,
    config: ConfigFile = None,
    preset: Presets = None,
    override: Overrides = None,
) -> None:
    """Make a token. It is shown once, on stdout, and kept nowhere; a running service takes it at once."""
    path = _tokens_file(config, preset, override)
    from medgen3d.serving.security.tokens import create_token

    token, entry = create_token(path, owner, scope or ("synthesize",), days)
    console.say(token)
    until = f"until {entry.expires:%Y-%m-%d}" if entry.expires else "for good"
    console.notice(f"Token {entry.id} of {owner}, {', '.join(entry.scopes)}, {until}. Keep it: it is not shown again.")


@tokens_app.command("list", epilog="Example: medgen3d tokens list")
def tokens_list(config: ConfigFile = None, preset: Presets = None, override: Overrides = None) -> None:
    """List the tokens, without themselves."""
    path = _tokens_file(config, preset, override)
    from medgen3d.serving.security.tokens import list_tokens

    now = datetime.now(UTC)
    rows = []
    for entry in list_tokens(path):
        gone = entry.expires is not None and entry.expires <= now
        until = "never" if entry.expires is None else f"{entry.expires:%Y-%m-%d}{' (expired)' if gone else ''}"
        rows.append((entry.id, entry.owner, ", ".join(entry.scopes), f"{entry.created:%Y-%m-%d}", until))
    console.show_table(f"Tokens in {path}", ("id", "owner", "scopes", "made", "expires"), rows)


@tokens_app.command("revoke", epilog="Example: medgen3d tokens revoke 1a2b3c4d")
def tokens_revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="As `medgen3d tokens list` shows it.")],
    config: ConfigFile = None,
    preset: Presets = None,
    override: Overrides = None,
) -> None:
    """Revoke a token; a running service refuses it from the next request on."""
    path = _tokens_file(config, preset, override)
    from medgen3d.serving.security.tokens import revoke_token

    entry = revoke_token(path, token_id)
    console.say(f"Revoked token {entry.id} of {entry.owner}")


def request(
    url: ServiceUrl = "http://127.0.0.1:8000",
    pipeline: Annotated[str | None, typer.Option(help="NAME, NAME@3, NAME@champion or builtin/NAME.")] = None,
    count: Annotated[int, typer.Option(help="Number of pairs.")] = 1,
    seed: Annotated[int, typer.Option(help="Same seed, same pairs.")] = 0,
    depth: Annotated[int | None, typer.Option(help="Slices of each mask; by default as in training.")] = None,
    spacing: Annotated[
        tuple[float, float, float] | None, typer.Option(help="Voxel size (D H W, mm) of the result.")
    ] = None,
    style: Annotated[int | None, typer.Option(help="Pairs with the same number share their appearance.")] = None,
    mask: Annotated[Path | None, typer.Option(help="NIfTI file: draw an image for this mask.")] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Keep the slices of --mask that hold a label, and draw the rest.")
    ] = False,
    known: Annotated[str | None, typer.Option(help="With --partial: the slices to keep, such as 0,5,9.")] = None,
    out: Annotated[Path, typer.Option(help="Zip file for the pairs.")] = Path("pairs.zip"),
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same one never makes a second job.")] = None,
    show_list: Annotated[bool, typer.Option("--list", help="List your jobs instead.")] = False,
    cancel: Annotated[str | None, typer.Option(metavar="ID", help="Cancel this job instead.")] = None,
    resume: Annotated[str | None, typer.Option(metavar="ID", help="Wait for this job and fetch it instead.")] = None,
) -> None:
    """Ask a running service for pairs, wait, and fetch them. The token is taken from MEDGEN3D_TOKEN."""
    with _client(url) as client, _explained():
        if show_list:
            rows = [(job["id"], job["state"], job["pipeline"], job["request"]["count"]) for job in client.jobs()]
            console.show_table(f"Jobs at {url}", ("id", "state", "pipeline", "pairs"), rows)
            return
        if cancel is not None:
            console.say(f"{cancel}: {client.cancel(cancel)['state']}")
            return
        if resume is None:
            if pipeline is None:
                raise ConfigError("--pipeline is missing; medgen3d request --pipeline builtin/hippocampus")
            job = client.submit(
                pipeline,
                count=count,
                seed=seed,
                depth=depth,
                spacing_mm=spacing,
                style=style,
                mask=mask,
                mask_use="partial" if partial else "full",
                known_slices=_slices(known),
                idempotency_key=key,
            )
            resume = job["id"]
            console.notice(f"Job {resume}; after an interruption: medgen3d request --url {url} --resume {resume}")
        _fetch(client, resume, out)
    console.say(f"Pairs: {out}")


def _fetch(client: Any, job_id: str, out: Path) -> None:
    with console.progress() as show:

        def progress(job: dict[str, Any]) -> None:
            note = f"{job['place']} jobs before it" if job["place"] is not None else job["state"]
            for stage in job["progress"]:
                show(stage["stage"], stage["done"], stage["total"])
            show("job", int(job["state"] == "succeeded"), 1, note)

        client.wait(job_id, progress)
    client.download(job_id, out)


def _slices(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise ConfigError(f"--known: found {text!r}, expected numbers such as 0,5,9") from None


def _tokens_file(config: Path | None, preset: list[str] | None, override: list[str] | None) -> Path:
    experiment = configuration(config, preset, override)
    from medgen3d.serving.security.tokens import TOKENS

    folder: Path = experiment.serving_dir
    return folder / TOKENS


def _client(url: str) -> Any:
    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token:
        raise ConfigError(f"{TOKEN_VARIABLE} is unset: put the token that you were given into it")
    from medgen3d.client import Client

    with _explained():
        return Client(url, token)


@contextmanager
def _explained() -> Iterator[None]:
    """What a service refuses is something that a user can mend."""
    from medgen3d.client import ClientError

    try:
        yield
    except ClientError as error:
        raise DataError(str(error)) from error
