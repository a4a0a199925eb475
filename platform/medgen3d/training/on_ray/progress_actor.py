"""The Ray actor through which the workers of a run tell the driver how far they are, and it asks them to stop."""


class ProgressActor:
    """Holds the latest step and metrics of rank 0, and whether the driver wants the run to end."""

    def __init__(self) -> None:
        self.step = 0
        self.metrics: dict[str, float] = {}
        self.stop = False

    def post(self, step: int, metrics: dict[str, float]) -> bool:
        """Rank 0 tells how far it is; the answer is whether to stop."""
        self.step, self.metrics = step, metrics
        return self.stop

    def read(self) -> tuple[int, dict[str, float]]:
        return self.step, self.metrics

    def ask_to_stop(self) -> None:
        self.stop = True
