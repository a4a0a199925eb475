"""A typed client of the HTTP service; it knows nothing of the rest of the package.

    with Client("http://127.0.0.1:8000", token) as client:
        job = client.submit("builtin/hippocampus", count=2, seed=7)
        client.wait(job["id"], lambda job: print(job["state"]))
        client.download(job["id"], Path("pairs.zip"))

Answers are the service's JSON, described by its OpenAPI document and typed below.
"""

import json
import re
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, TypeVar
from urllib.parse import quote

import httpx

FINAL = ("succeeded", "failed", "cancelled")
_TRIES = 5
_LONGEST_PAUSE_S = 30.0
_AGAIN = (429, 503)
Answer = TypeVar("Answer", bound=httpx.Response | None)


class JobStage(TypedDict):
    """How far a stage is, in units of work."""

    stage: str
    done: int
    total: int
    seconds: float


class Job(TypedDict):
    """A job as the service describes it; times are ISO 8601."""

    id: str
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    request: dict[str, Any]
    pipeline: str
    created: str
    started: str | None
    ended: str | None
    progress: list[JobStage]
    place: int | None
    eta_s: float | None
    attempts: int
    error: str
    result_bytes: int | None


class ClientError(Exception):
    """The service refused, failed or cannot be reached. args: (a sentence, HTTP status or None, job id or None)."""

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def status(self) -> int | None:
        """The HTTP status; None if there was no answer."""
        status: int | None = self.args[1]
        return status

    @property
    def job(self) -> str | None:
        """The job that goes on although this request did not wait for it."""
        job: str | None = self.args[2]
        return job


class JobFailedError(ClientError):
    """The job has ended without a result."""


class Client:
    """A connection to a service.

    Args:
        url: Such as http://127.0.0.1:8000.
        token: Of `medgen3d tokens create`.
        timeout_s: Longest silence of the service [s].
    """

    def __init__(self, url: str, token: str, *, timeout_s: float = 60.0) -> None:
        self._url = url.rstrip("/")
        try:
            self._http = httpx.Client(
                base_url=self._url, headers={"Authorization": f"Bearer {token}"}, timeout=timeout_s
            )
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            raise ClientError(f"{url} or the token is not valid: {error}", None, None) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def pipelines(self) -> list[dict[str, Any]]:
        """What can be asked for, with labels, spacing and limits."""
        found: list[dict[str, Any]] = self._json("GET", "/v1/pipelines")
        return found

    def pipeline(self, name: str) -> dict[str, Any]:
        """One pipeline with its model card."""
        found: dict[str, Any] = self._json("GET", f"/v1/pipelines/{quote(name)}")
        return found

    def submit(
        self,
        pipeline: str,
        *,
        count: int = 1,
        seed: int = 0,
        depth: int | None = None,
        spacing_mm: tuple[float, float, float] | None = None,
        style: int | None = None,
        mask: Path | None = None,
        mask_use: Literal["full", "partial"] = "full",
        known_slices: Sequence[int] | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Ask for pairs; the arguments are the fields of a request.

        Args:
            pipeline: `NAME`, `NAME@3`, `NAME@champion` or `builtin/NAME`.
            count: Number of pairs.
            seed: Same seed, same pairs.
            depth: Slices of each mask.
            spacing_mm: Voxel size (D, H, W) of the result.
            style: Pairs with the same number share their appearance.
            mask: NIfTI file with labels of the pipeline, at its spacing.
            mask_use: With a mask: draw an image for it, or keep its known slices and draw the rest.
            known_slices: Of a partial mask; None: those that hold a label.
            idempotency_key: The same key never makes a second job; None: a new one, so that a lost answer does no harm.

        Raises:
            ClientError: The service refused or cannot be reached.
        """
        asked = {"depth": depth, "spacing_mm": spacing_mm, "style": style}
        request: dict[str, Any] = {"pipeline": pipeline, "count": count, "seed": seed}
        request |= {name: value for name, value in asked.items() if value is not None}
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        if mask is None:
            made: Job = self._json("POST", "/v1/jobs", json=request, headers=headers)
            return made
        request["mask_use"] = mask_use
        if known_slices is not None:
            request["known_slices"] = list(known_slices)
        try:
            content = Path(mask).read_bytes()
        except OSError as error:
            raise ClientError(f"{mask} cannot be read: {error.strerror}", None, None) from error
        files = {"request": (None, json.dumps(request), "application/json"), "mask": ("mask", content)}
        posted: Job = self._json("POST", "/v1/jobs", files=files, headers=headers)
        return posted

    def job(self, job_id: str) -> Job:
        """How far a job is."""
        job: Job = self._json("GET", _path(job_id))
        return job

    def jobs(self, limit: int = 100) -> list[Job]:
        """Your newest jobs, newest first."""
        found: list[Job] = self._json("GET", "/v1/jobs", params={"limit": limit})
        return found

    def cancel(self, job_id: str) -> Job:
        """End a job."""
        job: Job = self._json("DELETE", _path(job_id))
        return job

    def wait(self, job_id: str, progress: Callable[[Job], None] | None = None, every_s: float = 0.5) -> Job:
        """Wait until a job has succeeded.

        Args:
            job_id: Which.
            progress: Called with the job's state now and then.
            every_s: How often to ask [s].

        Raises:
            JobFailedError: It failed or was cancelled.
            ClientError: The service cannot be reached for longer than a restart takes.
        """
        while True:
            job = self.job(job_id)
            if progress is not None:
                progress(job)
            if job["state"] in FINAL:
                break
            time.sleep(every_s)
        if job["state"] != "succeeded":
            reason = f"failed: {job['error']}" if job["state"] == "failed" else "was cancelled"
            raise JobFailedError(f"job {job_id} {reason}", None, job_id)
        return job

    def download(self, job_id: str, out: Path, file: str | None = None) -> Path:
        """Fetch the result, or one file of it; a download that was cut off goes on where it ended.

        Args:
            job_id: A job that succeeded.
            out: The file to write; it appears whole or not at all, the part so far is `OUT.part`.
            file: Name within the result, such as `images/syn_00000.nii.gz`; None: the zip file of all.

        Raises:
            ClientError: There is no result, or the service cannot be reached.
        """
        out, path = Path(out), _path(job_id) + "/result"
        part = out.with_name(f"{out.name}.{job_id[:8]}.part")
        self._until_answered(lambda: self._go_on(path, {"file": file} if file else {}, part))
        part.replace(out)
        return out

    def _go_on(self, path: str, params: dict[str, str], part: Path) -> httpx.Response | None:
        """Fetch what is not there yet; None once all of it is, else what the service says instead."""
        have = part.stat().st_size if part.exists() else 0
        headers = {"Range": f"bytes={have}-"} if have else {}
        with self._http.stream("GET", path, params=params, headers=headers) as answer:
            if answer.status_code == 416 and answer.headers.get("content-range") == f"bytes */{have}":
                return None
            if answer.is_error:
                answer.read()
                return answer
            with part.open("ab" if answer.status_code == 206 else "wb") as target:
                for chunk in answer.iter_bytes(2**20):
                    target.write(chunk)
        return None

    def _json(self, method: str, path: str, **arguments: Any) -> Any:
        answer = self._until_answered(lambda: self._http.request(method, path, **arguments))
        return answer.json()

    def _until_answered(self, ask: Callable[[], Answer]) -> Answer:
        """Every request may be repeated: those that make a job carry an idempotency key."""
        for number in range(_TRIES):
            try:
                answer = ask()
            except httpx.TransportError as error:
                self._pause_or_give_up(number, error)
                continue
            if answer is None or not answer.is_error:
                return answer
            if not _passes(answer) or number == _TRIES - 1:
                raise _refusal(answer)
            time.sleep(_pause_of(answer))
        raise AssertionError("the last try has ended otherwise")

    def _pause_or_give_up(self, number: int, error: httpx.TransportError) -> None:
        if number == _TRIES - 1 or isinstance(error, httpx.UnsupportedProtocol):
            reason = str(error) or type(error).__name__
            raise ClientError(f"{self._url} does not answer ({reason}). Is the service running?", None, None) from error
        time.sleep(0.5 * 2**number)


def _path(job_id: str) -> str:
    if not re.fullmatch("[0-9a-f]{32}", job_id):  # it also becomes part of a file's name
        raise ClientError(f"there is no job {job_id!r}; an id has 32 digits 0-9, a-f", None, None)
    return f"/v1/jobs/{job_id}"


def _passes(answer: httpx.Response) -> bool:
    """Whether the same request may be answered otherwise in a moment.

    A proxy of Ray Serve that has just been started knows no address and answers 404, in words of its own.
    """
    if answer.status_code == 404:
        return not answer.headers.get("content-type", "").startswith("application/json")
    return answer.status_code in _AGAIN


def _pause_of(answer: httpx.Response) -> float:
    given = answer.headers.get("retry-after", "1")
    return min(float(given) if given.isdecimal() else 1.0, _LONGEST_PAUSE_S)


def _refusal(answer: httpx.Response) -> ClientError:
    """The service's own sentence, or what else came from that address."""
    try:
        content = answer.json()
        return ClientError(str(content["detail"]), answer.status_code, content.get("job"))
    except (ValueError, KeyError, TypeError, AttributeError):
        sentence = f"{answer.url} answered {answer.status_code} and no reason; is this a medgen3d service?"
        return ClientError(sentence, answer.status_code, None)
