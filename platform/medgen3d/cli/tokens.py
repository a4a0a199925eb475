"""`medgen3d tokens`: who may use the HTTP service."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from medgen3d import console
from medgen3d.cli.options import ConfigOptions, grouped

app = typer.Typer(
    name="tokens",
    no_args_is_help=True,
    help="Make, list and revoke the tokens of the HTTP service.",
    epilog="Example: medgen3d tokens create anna --days 90",
)


@app.command(epilog="Example: medgen3d tokens create anna --scope synthesize --days 90")
@grouped
def create(
    owner: Annotated[str, typer.Argument(metavar="OWNER", help="To whom jobs belong; may have several tokens.")],
    scope: Annotated[list[str] | None, typer.Option(help="synthesize (the default) or admin; may be repeated.")] = None,
    days: Annotated[float | None, typer.Option(help="Time until it expires; by default never.")] = None,
    *,
    options: ConfigOptions,
) -> None:
    """Make a token. It is shown once, on stdout, and kept nowhere; a running service takes it at once."""
    path = _tokens_file(options)
    from medgen3d.serving.security.tokens import create_token

    token, entry = create_token(path, owner, scope or ("synthesize",), days)
    console.say(token)
    until = f"until {entry.expires:%Y-%m-%d}" if entry.expires else "for good"
    console.notice(f"Token {entry.id} of {owner}, {', '.join(entry.scopes)}, {until}. Keep it: it is not shown again.")


@app.command("list", epilog="Example: medgen3d tokens list")
@grouped
def list_all(options: ConfigOptions) -> None:
    """List the tokens, without themselves."""
    path = _tokens_file(options)
    from medgen3d.serving.security.tokens import list_tokens

    now = datetime.now(UTC)
    rows = []
    for entry in list_tokens(path):
        gone = entry.expires is not None and entry.expires <= now
        until = "never" if entry.expires is None else f"{entry.expires:%Y-%m-%d}{' (expired)' if gone else ''}"
        rows.append((entry.id, entry.owner, ", ".join(entry.scopes), f"{entry.created:%Y-%m-%d}", until))
    console.show_table(f"Tokens in {path}", ("id", "owner", "scopes", "made", "expires"), rows)


@app.command(epilog="Example: medgen3d tokens revoke 1a2b3c4d")
@grouped
def revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="As `medgen3d tokens list` shows it.")],
    *,
    options: ConfigOptions,
) -> None:
    """Revoke a token; a running service refuses it from the next request on."""
    path = _tokens_file(options)
    from medgen3d.serving.security.tokens import revoke_token

    entry = revoke_token(path, token_id)
    console.say(f"Revoked token {entry.id} of {entry.owner}")


def _tokens_file(options: ConfigOptions) -> Path:
    from medgen3d.serving.security.tokens import TOKENS

    return options.load().serving_dir / TOKENS
