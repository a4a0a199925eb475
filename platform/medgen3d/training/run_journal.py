"""The figures and pictures of a run on their way to MLflow: a file each in the run's folder until MLflow has them.

A training must not wait for a server, nor end with it. So what it says is written to disk, and a thread hands it on in
its order, for as long as it takes. What a process leaves behind the next one hands on.
"""

import base64
import logging
import threading
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from medgen3d.artifacts.durable_write import write_durably
from medgen3d.core.errors import RegistryError
from medgen3d.registry.tracking import RunLog, now_ms

FOLDER = "mlflow.pending"
MAX_ITEMS = 20_000
MAX_BYTES = 256 * 2**20
"""What is kept while MLflow does not answer; what comes after that is left out, with a warning."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_LOOK_EVERY_S = 1.0
log = logging.getLogger(__name__)


class _Figures(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    kind: Literal["figures"] = "figures"
    step: int
    at_ms: int
    values: dict[str, float]


class _Picture(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["picture"] = "picture"
    step: int
    name: str
    png: str  # base64


_ITEM: TypeAdapter[_Figures | _Picture] = TypeAdapter(Annotated[_Figures | _Picture, Field(discriminator="kind")])


class RunJournal:
    """What a run says, kept until MLflow has it.

    Args:
        run_folder: The run's own, on storage that every machine sees.
        run_log: Where it goes.
    """

    def __init__(self, run_folder: Path, run_log: RunLog) -> None:
        self._folder, self._run_log = run_folder / FOLDER, run_log
        self._folder.mkdir(parents=True, exist_ok=True)
        kept = self._pending()
        self._next = int(kept[-1].stem) + 1 if kept else 0
        self._num_kept, self._bytes_kept = len(kept), sum(path.stat().st_size for path in kept)
        self._lock, self._wake, self._ending = threading.Lock(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hand_on, name="mlflow", daemon=True)
        self._is_full = False

    def start(self) -> None:
        """Begin to hand on, in a thread."""
        self._thread.start()

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Keep the numbers of a step."""
        self._keep(_Figures(step=step, at_ms=now_ms(), values=values))

    def image(self, name: str, png: bytes, step: int) -> None:
        """Keep a picture, given as a PNG file's bytes."""
        self._keep(_Picture(step=step, name=name, png=base64.b64encode(png).decode()))

    def close(self, patience_s: float) -> None:
        """Give the thread some time to hand on what there is; what is left then lies in the folder."""
        self._ending.set()
        self._wake.set()
        self._thread.join(patience_s)

    def drain(self) -> None:
        """Hand on everything that a process left behind, in its order.

        Raises:
            RegistryError: MLflow refuses or does not answer; what it has not got is still there.
        """
        for path in self._pending():
            self._send(path)

    def _keep(self, item: _Figures | _Picture) -> None:
        content = item.model_dump_json().encode()
        with self._lock:
            is_full = self._num_kept >= MAX_ITEMS or self._bytes_kept + len(content) > MAX_BYTES
            if is_full and not self._is_full:
                log.warning("%s is full; what comes now is left out until MLflow answers", self._folder)
            self._is_full = is_full
            if is_full:
                return
            self._num_kept, self._bytes_kept = self._num_kept + 1, self._bytes_kept + len(content)
            path = self._folder / f"{self._next:012d}.json"
            self._next += 1
        write_durably(path, content)
        self._wake.set()

    def _hand_on(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            self._wake.wait(_LOOK_EVERY_S)
            self._wake.clear()
            try:
                for path in self._pending():
                    self._send(path)
                pause_s = _FIRST_PAUSE_S
                if self._ending.is_set() and not self._pending():
                    return
            except RegistryError as error:
                if pause_s == _FIRST_PAUSE_S:
                    log.warning("%s; figures are kept in %s until it has them", error, self._folder)
                if self._ending.wait(pause_s):
                    return
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _send(self, path: Path) -> None:
        content = path.read_bytes()
        item = _ITEM.validate_json(content)
        if isinstance(item, _Figures):
            self._run_log.metrics(item.step, item.values, item.at_ms)
        else:
            self._run_log.image(item.name, base64.b64decode(item.png), item.step)
        path.unlink()
        with self._lock:
            self._num_kept, self._bytes_kept = self._num_kept - 1, self._bytes_kept - len(content)

    def _pending(self) -> list[Path]:
        return sorted(self._folder.glob("*.json"))
