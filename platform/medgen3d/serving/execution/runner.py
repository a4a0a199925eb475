"""Drives accepted jobs through an engine: claims them, renews their leases, writes results.

Every process of a service has one runner in its event loop. None of them is special: a job whose runner dies is claimed
by another as soon as its lease has run out.
"""

import asyncio
import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from medgen3d.core.errors import Medgen3dError
from medgen3d.core.volume import Volume
from medgen3d.serving.execution.engine import CaseSpec, Engine, JobPlan, UndrawableJobError
from medgen3d.serving.execution.job_planning import plan_cases
from medgen3d.serving.execution.results import write_result
from medgen3d.serving.files import JobFiles
from medgen3d.serving.inference.pipeline_catalog import ServedPipeline
from medgen3d.serving.queue.leases import ClaimedJob, Leases
from medgen3d.serving.schemas import StageProgress
from medgen3d.serving.security.uploads import read_mask
from medgen3d_stages.arrays import Image, Mask

POLL_S = 0.5
"""How often a runner that has room looks for jobs that other processes accepted [s]."""
HEARTBEAT_S = 0.3
"""Time between heartbeats, and so how soon it notices a cancelled job [s]."""
_SWEEP_S = 60.0
_MAX_REASON = 500
_DETERMINISTIC = (ValueError, ArithmeticError, TypeError, LookupError)
"""What the same numbers would raise again in each attempt, in a process of a stage as well: Ray keeps the type."""
_log = logging.getLogger(__name__)

Ending = Literal["succeeded", "failed", "retried", "lost"]
Ended = Callable[[Ending, float], None]
"""(how an execution ended, seconds that it took)."""


@dataclass(slots=True)
class _Execution:
    task: asyncio.Task[None]
    progress: dict[str, StageProgress] = field(default_factory=dict)


class Runner:
    """Runs jobs until it is stopped.

    Args:
        leases: Where jobs are claimed.
        engine: What draws.
        files: Where masks and results lie.
        max_running: Jobs at a time.
        keep_results_s: Time for which ended jobs are kept [s].
        ended: Told how each execution ended.
    """

    def __init__(
        self,
        leases: Leases,
        engine: Engine,
        files: JobFiles,
        *,
        max_running: int,
        keep_results_s: float,
        ended: Ended,
    ) -> None:
        self._leases = leases
        self._engine = engine
        self._files = files
        self._max_running = max_running
        self._keep_results_s = keep_results_s
        self._ended = ended
        self._name = f"{socket.gethostname()[:60]}:{os.getpid()}"
        self._executions: dict[tuple[str, int], _Execution] = {}
        self._wake = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self._heart: threading.Thread | None = None
        self._quiet = threading.Event()
        self._stopping = False

    def start(self) -> None:
        """Begin, in the running event loop."""
        self._loops = [asyncio.create_task(loop) for loop in (self._claim_loop(), self._sweep_loop())]
        loop = asyncio.get_running_loop()
        self._heart = threading.Thread(target=self._beat, args=(loop,), name="heartbeats", daemon=True)
        self._heart.start()

    def wake(self) -> None:
        """Look for a job at once; one was accepted in this process."""
        self._wake.set()

    async def stop(self) -> None:
        """Stop everything, and give the jobs back so that another runner, or this one later, goes on at once."""
        self._stopping = True
        self._wake.set()
        await asyncio.gather(*self._loops[:1], return_exceptions=True)  # a claim that is under way is given back
        await asyncio.sleep(0)  # a task must have begun to notice that it is cancelled
        tasks = [*self._loops[1:], *(execution.task for execution in self._executions.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._quiet.set()
        if self._heart:
            await asyncio.to_thread(self._heart.join)

    async def _claim_loop(self) -> None:
        while not self._stopping:
            self._wake.clear()
            with _survived("claiming jobs"):
                while len(self._executions) < self._max_running and not self._stopping:
                    claimed = await asyncio.to_thread(self._leases.claim, self._name)
                    if claimed is None:
                        break
                    if self._stopping:
                        await asyncio.to_thread(self._leases.give_back, claimed.id, claimed.attempt)
                    else:
                        self._begin(claimed)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), POLL_S)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        """Renew leases in a thread of its own, which no client's request in the event loop can keep waiting."""
        heard = time.monotonic()
        while not self._quiet.wait(HEARTBEAT_S):
            running = {key: list(execution.progress.values()) for key, execution in list(self._executions.items())}
            if not running:
                heard = time.monotonic()
                continue
            lost = set(running) if time.monotonic() - heard > self._leases.lease_s else set()
            with _survived("renewing leases"):
                lost = self._leases.heartbeat(running)
                heard = time.monotonic()
            for key in lost:
                loop.call_soon_threadsafe(self._cancel, key)

    def _cancel(self, key: tuple[str, int]) -> None:
        """A job that belongs to another runner now, unless it has ended meanwhile."""
        if key in self._executions:
            self._executions[key].task.cancel()

    async def _sweep_loop(self) -> None:
        while True:
            with _survived("removing old results"):
                await asyncio.to_thread(self._sweep)
            await asyncio.sleep(_SWEEP_S)

    def _sweep(self) -> None:
        for job_id in self._leases.remove_ended(self._keep_results_s):
            self._files.remove(job_id)
        self._files.sweep(self._leases.known())
        for job_id in self._files.untidy():
            self._tidy(job_id)

    def _begin(self, claimed: ClaimedJob) -> None:
        key = (claimed.id, claimed.attempt)
        self._executions[key] = _Execution(task=asyncio.create_task(self._execute(claimed)))

    async def _execute(self, claimed: ClaimedJob) -> None:
        began = time.monotonic()
        key = (claimed.id, claimed.attempt)
        ending: Ending = "lost"
        with _survived("saying how a job ended"):  # if nothing can be said, its lease runs out
            try:
                ending = await self._drive(claimed)
            except asyncio.CancelledError:
                if self._stopping:
                    await asyncio.to_thread(self._leases.give_back, *key)
            except UndrawableJobError as error:
                await asyncio.to_thread(self._leases.fail, *key, _sentence(error))
                ending = "failed"
            except _DETERMINISTIC as error:
                _log.error("job %s, attempt %d: %s", *key, error, exc_info=True)
                await asyncio.to_thread(self._leases.fail, *key, _sentence(error))
                ending = "failed"
            except Exception as error:  # whatever it is: the job gets another attempt, the runner goes on
                _log.warning("job %s, attempt %d: %s", *key, error, exc_info=not isinstance(error, Medgen3dError))
                await asyncio.to_thread(self._leases.retry, *key, _sentence(error))
                ending = "retried"
        self._executions.pop(key, None)
        self._wake.set()
        self._ended(ending, time.monotonic() - began)
        with _survived("removing the work of an ended job"):
            await asyncio.to_thread(self._tidy, claimed.id)

    async def _drive(self, claimed: ClaimedJob) -> Ending:
        loaded = await self._engine.accepted(claimed.pipeline)
        mask, cases = await asyncio.to_thread(self._planned, claimed, loaded)
        work = await asyncio.to_thread(self._files.work, claimed.id)
        plan = JobPlan(job_id=claimed.id, pipeline=claimed.pipeline, cases=cases, folder=work)
        progress = self._executions[claimed.id, claimed.attempt].progress

        since = time.monotonic()

        def show(stage: str, done: int, total: int) -> None:
            nonlocal since
            before, passed, since = progress.get(stage), time.monotonic() - since, time.monotonic()
            spent = passed + (before.seconds if before else 0.0)
            progress[stage] = StageProgress(stage=stage, done=done, total=total, seconds=round(spent, 3))

        pairs = await self._engine.run(plan, show)
        size = await asyncio.to_thread(self._write, claimed, loaded, cases, pairs, mask)
        told = list(progress.values())
        counts = await asyncio.to_thread(self._leases.finish, claimed.id, claimed.attempt, size, told)
        return "succeeded" if counts else "lost"

    def _planned(self, claimed: ClaimedJob, loaded: ServedPipeline) -> tuple[Volume | None, list[CaseSpec]]:
        mask = read_mask(self._files.mask(claimed.id)) if claimed.request.mask_use else None
        return mask, plan_cases(claimed.request, loaded, mask)

    def _write(
        self,
        claimed: ClaimedJob,
        loaded: ServedPipeline,
        cases: list[CaseSpec],
        pairs: Sequence[tuple[Image, Mask]],
        mask: Volume | None,
    ) -> int:
        return write_result(
            self._files.result(claimed.id, claimed.attempt),
            self._files.archive(claimed.id, claimed.attempt),
            claimed.request,
            loaded,
            cases,
            pairs,
            mask_digest=claimed.mask_digest,
            affine=None if mask is None else mask.affine,
        )

    def _tidy(self, job_id: str) -> None:
        ended, attempt = self._leases.ended(job_id)
        if ended:
            self._files.keep_only_result(job_id, attempt)


@contextlib.contextmanager
def _survived(what: str) -> Iterator[None]:
    """A database that is away for a while must not end the runner."""
    try:
        yield
    except Exception:
        _log.exception("%s failed and is tried again", what)


def _sentence(error: BaseException) -> str:
    """The reason of a failure for a client: one line, without the stack trace that Ray puts into its messages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else "no reason given"
    if not isinstance(error, UndrawableJobError | Medgen3dError) and len(lines) <= 1:
        text = f"{type(error).__name__}: {text}"
    return text[:_MAX_REASON]
