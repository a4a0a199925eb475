"""The exit codes of the command line, and the one sentence that goes with each.

0: done. 1: it could not be done this time, and nothing about the command is wrong: the machine was too busy, single
cases were given up, a gate is not passed. 2: something that the user can mend. 130: Ctrl-C. A bug keeps its traceback.
"""

from typing import Any

import typer
from typer.core import TyperGroup

from medgen3d import console
from medgen3d.core.errors import Medgen3dError, StartTimeoutError

NOT_THIS_TIME = 1
MENDABLE = 2
INTERRUPTED = 130

_LEFT_BY_CTRL_C = {
    "train": "checkpoints are kept: the same command goes on from the last one",
    "evaluate": "no new report was written: the same command starts again, with the segmenter as far as it is trained",
    "request": "the job goes on: medgen3d request --resume ID fetches its result",
    **dict.fromkeys(("ingest", "synthesize", "usefulness", "demo"), "the same command goes on with what is finished"),
}
"""By command."""


class ExitCodes(TyperGroup):
    """The group of all commands: it turns the errors that they raise into exit codes."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Medgen3dError as error:
            console.notice(f"Error: {error}")
            raise typer.Exit(NOT_THIS_TIME if isinstance(error, StartTimeoutError) else MENDABLE) from error
        except KeyboardInterrupt as interrupt:
            left = _LEFT_BY_CTRL_C.get(str(ctx.invoked_subcommand), "what is finished is kept")
            console.notice(f"Interrupted; {left}.")
            raise typer.Exit(INTERRUPTED) from interrupt
