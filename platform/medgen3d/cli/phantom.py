"""`medgen3d phantom`: a data set of phantoms."""

from pathlib import Path
from typing import Annotated

import typer

from medgen3d import console

app = typer.Typer()


@app.command(epilog="Example: medgen3d phantom --kind thorax_ct --count 24 --out phantoms")
def phantom(
    out: Annotated[Path, typer.Option(help="New folder for the data set.")],
    kind: Annotated[str, typer.Option(help="thorax_ct or brain_mr.")] = "thorax_ct",
    count: Annotated[int, typer.Option(help="Number of cases.")] = 24,
    seed: Annotated[int, typer.Option(help="Same seed, same files.")] = 0,
) -> None:
    """Make a labelled data set of phantoms, in Medical Segmentation Decathlon layout."""
    from medgen3d.ingest.phantom import write_phantoms

    with console.progress() as show:
        write_phantoms(kind, count, seed, out, lambda done, total: show("phantoms", done, total))
    console.say(f"{count} phantoms: {out}")
    console.say(f"Next: medgen3d ingest {out} --out {out}-prepared")
