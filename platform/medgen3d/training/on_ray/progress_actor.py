"""Where the workers and the driver of a run meet."""


class ProgressActor:
    """Where rank 0 tells the driver how far it is, and the driver asks the workers to stop."""

    def __init__(self) -> None:
        self.step = 0
        self.metrics: dict[str, float] = {}
        self.stop = False

    def post(self, step: int, metrics: dict[str, float]) -> bool:
        """Tell; the answer is whether to stop."""
        self.step, self.metrics = step, metrics
        return self.stop

    def read(self) -> tuple[int, dict[str, float]]:
        return self.step, self.metrics

    def ask_to_stop(self) -> None:
        self.stop = True
