"""`medgen3d pipelines`: the trained pipelines that are built in."""

from typing import Annotated

import typer

from medgen3d import console

app = typer.Typer()


@app.command(epilog="Example: medgen3d pipelines hippocampus")
def pipelines(
    name: Annotated[str | None, typer.Argument(help="Show this pipeline's model card.")] = None,
) -> None:
    """List the trained pipelines that are built in: synthesize --pipeline builtin/NAME works at once."""
    from medgen3d.registry.builtin import PREFIX, describe_builtin, list_builtin

    if name is not None:
        console.say(describe_builtin(name.removeprefix(PREFIX)).card.rstrip())
        return
    rows = [
        (
            PREFIX + each.name,
            ", ".join(label for label_id, label in each.info.labels.items() if label_id),
            " x ".join(f"{length:g}" for length in each.info.spacing_mm),
            each.info.modality,
            f"{each.num_bytes / 1e6:.1f}",
            each.facts.licence,
            each.facts.summary,
        )
        for each in list_builtin()
    ]
    heads = ("pipeline", "labels", "spacing D x H x W [mm]", "modality", "MB", "licence", "what it draws")
    console.show_table("Built-in pipelines", heads, rows)
