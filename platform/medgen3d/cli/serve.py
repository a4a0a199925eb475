"""`medgen3d serve`: the HTTP service, on this machine or on a cluster."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from medgen3d import console
from medgen3d.cli.options import ConfigOptions, Verbose, grouped

app = typer.Typer(name="serve", epilog="Example: medgen3d serve --pipeline builtin/hippocampus")
Offered = Annotated[
    list[str] | None, typer.Option("--pipeline", help="NAME@champion, NAME@3, NAME or builtin/NAME; may be repeated.")
]


@app.callback(invoke_without_command=True)
@grouped
def serve(
    context: typer.Context, pipeline: Offered = None, *, options: ConfigOptions, verbose: Verbose = False
) -> None:
    """Serve pairs over HTTP on this machine until Ctrl-C. Listens at loopback unless `serving.host` says otherwise."""
    if context.invoked_subcommand:
        return
    experiment = options.load(*_offering(pipeline))
    console.begin_logging(verbose=verbose)
    from medgen3d.recipes.serve import served_here, unfinished_jobs

    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    console.notice(f"Starting {', '.join(experiment.serving.pipelines)}; this takes a while ...")
    with served_here(experiment, verbose=verbose) as url:
        console.say(f"Serving at {url}")
        console.notice("Ctrl-C stops it. `medgen3d tokens create OWNER` makes a token for a client.")
        stopped.wait()
        console.notice("Stopping: answers under way are finished, unfinished jobs are put back into the queue ...")
    left = unfinished_jobs(experiment)
    console.say(
        f"Stopped. {left} unfinished jobs are kept in {experiment.serving_dir} and go on from their last finished "
        "stage when the service is started again with the same configuration."
        if left
        else "Stopped. No job was left unfinished."
    )


@app.command("deploy", epilog="Example: medgen3d serve deploy --config deploy/serve.yaml")
def serve_deploy(
    config: Annotated[
        Path, typer.Option("--config", help="A Serve config file, as `medgen3d serve config` prints it.")
    ],
    address: Annotated[
        str, typer.Option(envvar="RAY_DASHBOARD_ADDRESS", help="The cluster's dashboard.")
    ] = "http://127.0.0.1:8265",
    timeout: Annotated[float, typer.Option(help="How long to wait until it runs [s].")] = 600,
    check: Annotated[bool, typer.Option("--check", help="Only check the file.")] = False,
) -> None:
    """Send the service to a running cluster, or update it there, and wait until it runs or has failed."""
    from medgen3d.recipes.deploy import deploy, read_serve_file

    if check:
        read_serve_file(config)
        console.say(f"{config} is sound")
        return
    route = deploy(config, address, timeout, console.notice)
    console.say(f"Running, at the route {route} of the cluster's HTTP port")


@app.command("config", epilog="Example: medgen3d serve config --pipeline knee@champion > serve.yaml")
@grouped
def serve_config(pipeline: Offered = None, *, options: ConfigOptions) -> None:
    """Print the Serve config file of a configuration: what `medgen3d serve --config` and `serve deploy` take."""
    from medgen3d.recipes.deploy import serve_file

    console.say(serve_file(options.load(*_offering(pipeline))).rstrip())


def _offering(pipelines: list[str] | None) -> list[str]:
    return [f"serving.pipelines=[{', '.join(pipelines)}]"] if pipelines else []
