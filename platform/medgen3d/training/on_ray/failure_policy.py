"""The failures that end a run instead of being tried again. Loaded by Ray Train's controller."""

from typing import Any

from ray.train import UserCallback

from medgen3d.core.errors import Medgen3dError


class StopForOwnErrors(UserCallback):
    """Ends a run at the first error of ours: a user must mend it first, and Ray Train would only try it again.

    Ray Train repeats what fails in a worker, but not what fails in its controller, where this is called.
    """

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for error in worker_exceptions.values():
            if isinstance(error, Medgen3dError):
                raise error
