"""The audit log: put aside when it is full, and not to be filled by who has no token."""

import json

import pytest

from medgen3d.serving.security import audit
from medgen3d.serving.security.audit import NUM_KEPT, STRANGERS_PER_MINUTE, AuditLog


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_requests_without_a_token_are_counted_and_only_some_told(tmp_path, monkeypatch):
    minute = 0.0
    monkeypatch.setattr(audit.time, "monotonic", lambda: 60 * minute)
    log = AuditLog(tmp_path / "audit.jsonl")
    for _ in range(10 * STRANGERS_PER_MINUTE):
        log.record(owner=None, path="/v1/jobs", status=401)
    assert len(lines(log.path)) == STRANGERS_PER_MINUTE
    log.record(owner="anna", path="/v1/jobs", status=202)
    assert lines(log.path)[-1]["left_out_without_token"] == 9 * STRANGERS_PER_MINUTE
    minute = 1.0
    log.record(owner=None, path="/v1/jobs", status=401)
    assert lines(log.path)[-1]["status"] == 401
    assert "left_out_without_token" not in lines(log.path)[-1]


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(audit, "MAX_BYTES", 1000)


def test_a_full_log_is_put_aside_and_the_oldest_goes(tmp_path, small):
    logs = [AuditLog(tmp_path / "audit.jsonl") for _ in range(2)]  # two processes of a service
    for number in range(200):
        logs[number % 2].record(owner="anna", number=number)
    kept = sorted(tmp_path.glob("audit.jsonl*"))
    assert [path.name for path in kept][1:] == [f"audit.jsonl.{place}" for place in range(1, NUM_KEPT + 1)]
    numbers = [line["number"] for path in (*reversed(kept[1:]), kept[0]) for line in lines(path)]
    assert numbers == list(range(numbers[0], 200))
    assert all(path.stat().st_size < 1200 for path in kept)
