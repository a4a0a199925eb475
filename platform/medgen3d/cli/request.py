"""`medgen3d request`: pairs from a running HTTP service."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medgen3d import console
from medgen3d.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from medgen3d.client import Client, Job

TOKEN_VARIABLE = "MEDGEN3D_TOKEN"

app = typer.Typer()
ServiceUrl = Annotated[str, typer.Option("--url", envvar="MEDGEN3D_URL", help="Address of the service.")]


@app.command(epilog="Example: medgen3d request --pipeline builtin/hippocampus --count 2")
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
    with _explained(), _client(url) as client:
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


def _fetch(client: "Client", job_id: str, out: Path) -> None:
    with console.progress() as show:

        def progress(job: "Job") -> None:
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


def _client(url: str) -> "Client":
    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token:
        raise ConfigError(f"{TOKEN_VARIABLE} is unset: put the token that you were given into it")
    from medgen3d.client import Client

    return Client(url, token)


@contextmanager
def _explained() -> Iterator[None]:
    """What a service refuses is something that a user can mend."""
    from medgen3d.client import ClientError

    try:
        yield
    except ClientError as error:
        raise DataError(str(error)) from error
