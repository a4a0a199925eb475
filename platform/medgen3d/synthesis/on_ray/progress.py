"""Progress of a run, reported to the caller, to `status.json` and to metrics; and the signals that ask it to end."""

import os
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import ray

from medgen3d.artifacts.case_status import CaseStatus
from medgen3d.artifacts.run_status import RunState, RunStatus, StageStatus
from medgen3d.synthesis.batch_codec import WRITTEN
from medgen3d.synthesis.run import SynthesisRun

Progress = Callable[[Mapping[str, int], int, Mapping[str, str]], None]
"""(cases done by stage, cases to do, what else there is to know by stage)."""
_POLL_S = 2.0  # each question costs the driver and the counters some milliseconds of a core that may be drawing
_WRITE_S = {True: 2.0, False: 15.0}  # whether the folder is local
_WINDOW_S = 120.0
_ANSWER_S = 10.0


class RunProgress:
    """Reports how far a run is, from a thread of its own."""

    def __init__(
        self, run: SynthesisRun, counters: Any, processes: Mapping[str, int], show: Progress, resume: str
    ) -> None:
        self.run, self.counters, self.processes, self.show, self.resume = run, counters, processes, show, resume
        self.began, self.started = time.monotonic(), datetime.now(UTC)
        self.total = len(run.ledger.missing)
        self.done: deque[tuple[float, int]] = deque()
        self.written_at = -1e9
        self.counts: dict[str, int] = dict.fromkeys(processes, 0)
        self.busy_s: dict[str, float] = dict.fromkeys(processes, 0.0)
        self.finished, self.asked_to_end = threading.Event(), threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Report while the block runs; what it ends with, an error or not, is the last that is reported."""
        reporter = threading.Thread(target=self._report, daemon=True)
        reporter.start()
        state: RunState = "stopped"
        message = ""
        try:
            yield
            state = "finished"
        except KeyboardInterrupt:
            state = "interrupted"
            raise
        except Exception as error:
            message = str(error)
            raise
        finally:
            self.finished.set()
            reporter.join()
            with suppress(ray.exceptions.RayError):
                self._read()
            with suppress(OSError):  # a full disk: the error itself says so
                self.status(state, message).write(self.run.folder)
        self._show_all()

    def status(self, state: RunState, message: str = "") -> RunStatus:
        """How far the run is."""
        ledger, rate = self.run.ledger, self._rate()
        return RunStatus(
            state=state,
            planned=self.run.plan.count,
            done=ledger.count(CaseStatus.DONE),
            failed=ledger.count(CaseStatus.FAILED),
            rejections=self._rejections(),
            stages={
                stage: StageStatus(num_done=self.counts[stage], busy_s=round(self.busy_s[stage], 3), processes=number)
                for stage, number in self.processes.items()
            },
            started=self.started,
            updated=datetime.now(UTC),
            seconds=round(time.monotonic() - self.began, 3),
            cases_per_s=rate,
            eta_s=len(ledger.missing) / rate if rate else None,
            host=socket.gethostname(),
            pid=os.getpid(),
            resume=self.resume,
            message=message,
        )

    def _report(self) -> None:
        while not self.finished.wait(_POLL_S):
            if self.asked_to_end.is_set():
                self.counters.stop.remote()
            with suppress(ray.exceptions.RayError, OSError):
                self._read()
                self._show_all()
                if time.monotonic() - self.written_at > _WRITE_S[self.run.folder.is_local]:
                    self._publish()

    def _read(self) -> None:
        self.counts, self.busy_s = ray.get(self.counters.read.remote(), timeout=_ANSWER_S)
        now, done = time.monotonic(), self.run.ledger.count(CaseStatus.DONE) + self.run.ledger.count(CaseStatus.FAILED)
        self.done.append((now, done))
        while now - self.done[0][0] > _WINDOW_S:
            self.done.popleft()

    def _show_all(self) -> None:
        shown = {stage: min(done, self.total) for stage, done in self.counts.items()}
        status = self.status("running")
        drawing = [stage for stage in self.processes if self.counts[stage]]  # time counts once a batch is through
        busy = {stage: f"{status.busy(stage):.0%} busy" for stage in drawing}
        self.show(shown, self.total, busy | {WRITTEN: self._note()})

    def _publish(self) -> None:
        self.written_at = time.monotonic()
        ledger = self.run.ledger
        numbers = {str(status): ledger.count(status) for status in (CaseStatus.DONE, CaseStatus.FAILED)}
        self.counters.publish.remote(numbers | {str(CaseStatus.MISSING): len(ledger.missing)}, self._rejections())
        self.status("running").write(self.run.folder)

    def _note(self) -> str:
        ledger, rate = self.run.ledger, self._rate()
        rejected = sum(self._rejections().values())
        parts = [f"{rejected} rejected"] if rejected else []
        if ledger.count(CaseStatus.FAILED):
            parts.append(f"{ledger.count(CaseStatus.FAILED)} given up")
        if rate:
            parts.append(f"{rate:.3g} cases/s")
        return ", ".join(parts)

    def _rate(self) -> float | None:
        if len(self.done) < 2:
            return None
        (since, before), (now, done) = self.done[0], self.done[-1]
        return (done - before) / (now - since) if done > before else None

    def _rejections(self) -> dict[str, int]:
        return dict(sum((Counter(counts) for counts in list(self.run.ledger.rejections.values())), Counter[str]()))


@contextmanager
def ends_on_request(asked: threading.Event) -> Iterator[None]:
    """Within the block Ctrl-C and SIGTERM let begun batches end, and begin no others; a second one cuts off."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread
        return

    def ask(_number: int, _frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()  # no more: the thread of `RunProgress` passes it on, since Ray may be busy here

    former = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
