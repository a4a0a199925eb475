"""Figures for Prometheus; each process of a service has its own, but for the jobs, which are the whole service's."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_JOB_BUCKETS_S = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800, 7200)


class Metrics:
    """What is counted.

    Args:
        counts: Number of jobs by state, asked for whenever the figures are.
    """

    def __init__(self, counts: Callable[[], Mapping[str, int]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Jobs(counts))
        self._requests = Counter(
            "medgen3d_requests", "Requests answered", ("method", "route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "medgen3d_request_seconds", "Time until an answer begins", ("route",), registry=self._registry
        )
        self._executions = Counter(
            "medgen3d_executions", "Executions of jobs that ended", ("ending",), registry=self._registry
        )
        self._job_seconds = Histogram(
            "medgen3d_execution_seconds", "Time that an execution took", buckets=_JOB_BUCKETS_S, registry=self._registry
        )

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered; `route` is a path with its placeholders, so that there are few."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def job_ended(self, ending: str, seconds: float) -> None:
        """An execution of a job ended."""
        self._executions.labels(ending).inc()
        self._job_seconds.observe(seconds)

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self._registry)


class _Jobs(Collector):
    def __init__(self, counts: Callable[[], Mapping[str, int]]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        gauge = GaugeMetricFamily("medgen3d_jobs", "Jobs in the store", labels=["state"])
        for state, number in self._counts().items():
            gauge.add_metric([state], number)
        yield gauge

    def describe(self) -> list[Metric]:
        """Names only, so that registering asks no database."""
        return [GaugeMetricFamily("medgen3d_jobs", "Jobs in the store", labels=["state"])]
