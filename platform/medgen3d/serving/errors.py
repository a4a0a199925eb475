"""The refusals of the service: the class decides the HTTP status (`api.problems`), the text is one sentence."""

from medgen3d.core.errors import Medgen3dError


class RefusedError(Medgen3dError):
    """A request that is not accepted. args: (a sentence,)."""


class KeyReusedError(RefusedError):
    """The idempotency key stands for another request."""


class BusyError(RefusedError):
    """Not now. args: (a sentence, seconds after which to try again)."""

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def retry_after_s(self) -> float:
        return float(self.args[1])


class QueueFullError(BusyError):
    """The whole service has too much to do."""


class OwnerBusyError(BusyError):
    """One owner asks for too much."""


class UnknownJobError(RefusedError):
    """There is no such job, or it belongs to another owner."""


class BadMaskError(RefusedError):
    """A mask that cannot be used. args: (a sentence,)."""
