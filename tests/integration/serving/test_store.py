"""The job store on real SQLite and real PostgreSQL: nothing is lost, nothing is run twice, whoever dies."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sqlalchemy import update

from medgen3d.serving.errors import KeyReusedError, OwnerBusyError, QueueFullError, UnknownJobError
from medgen3d.serving.job_states import STATES, JobState
from medgen3d.serving.queue.database import Database, jobs, sqlite_url
from medgen3d.serving.queue.job_store import JobStore, NewJob, new_id
from medgen3d.serving.queue.leases import Leases
from medgen3d.serving.queue.rate_limit import RateLimiter
from medgen3d.serving.queue.transitions import move
from medgen3d.serving.schemas import JobRequest, StageProgress


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path) -> str:
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "jobs.db")
    return request.getfixturevalue("postgres")()


@pytest.fixture
def database(url) -> Iterator[Database]:
    opened = Database(url)
    yield opened
    opened.close()


@pytest.fixture
def store(database) -> JobStore:
    return JobStore(database, max_queued=1000, jobs_per_owner=1000)


@pytest.fixture
def leases(database) -> Leases:
    return Leases(database, lease_s=30, max_attempts=3)


def new_job(owner: str = "anna", key: str | None = None, digest: str = "1" * 64, pairs: int = 1) -> NewJob:
    request = JobRequest(pipeline="knee", count=pairs, seed=4)
    return NewJob(
        id=new_id(),
        owner=owner,
        request=request,
        pipeline="knee@3",
        digest=digest,
        num_pairs=pairs,
        idempotency_key=key,
    )


def let_lease_run_out(database: Database, job_id: str) -> None:
    with database.writing() as connection:
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(lease_until=1.0))


def test_an_accepted_job_is_there_for_whoever_opens_the_database_next(url, store):
    job_id, is_new = store.submit(new_job(pairs=2))
    again = JobStore(Database(url), max_queued=1, jobs_per_owner=1).status(job_id, "anna")
    assert is_new
    assert (again.state, again.pipeline, again.request.count, again.place) == ("queued", "knee@3", 2, 0)


@pytest.mark.parametrize("state", JobState)
def test_a_state_changes_only_to_those_that_the_table_lets_follow(state, store, database):
    job_id, _ = store.submit(new_job())
    for target in JobState:
        with database.writing() as connection:
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(state=state))
            moved = move(connection, jobs.c.id == job_id, target)
        assert moved == (target in STATES[state].next)
        assert store.status(job_id, "anna").state == (target if moved else state)


def test_jobs_are_claimed_in_the_order_in_which_they_came(store, leases):
    ids = [store.submit(new_job())[0] for _ in range(3)]
    assert [store.status(job_id, "anna").place for job_id in ids] == [0, 1, 2]
    assert [leases.claim("a").id for _ in ids] == ids
    assert leases.claim("a") is None


def test_owners_take_turns_so_that_many_jobs_of_one_do_not_keep_others_waiting(store, leases):
    many = [store.submit(new_job("anna"))[0] for _ in range(3)]
    ben, first_of_cleo = (store.submit(new_job(owner))[0] for owner in ("ben", "cleo"))
    second_of_cleo, _ = store.submit(new_job("cleo"))
    order = [many[0], ben, first_of_cleo, many[1], second_of_cleo, many[2]]

    assert [store.status(job_id, None).place for job_id in order] == [0, 1, 2, 3, 4, 5]
    assert [leases.claim("a").id for _ in range(2)] == order[:2]
    assert leases.finish(ben, 1, 10)
    late, _ = store.submit(new_job("ben"))  # has nothing under way, unlike the others who came before
    assert store.status(late, "ben").place == 1
    assert [leases.claim("a").id for _ in range(5)] == [first_of_cleo, late, *order[3:]]


def test_a_job_that_is_owned_is_not_claimed_again_before_its_lease_has_run_out(store, leases, database):
    job_id, _ = store.submit(new_job())
    assert leases.claim("a").attempt == 1
    assert leases.claim("b") is None
    let_lease_run_out(database, job_id)
    taken = leases.claim("b")
    assert (taken.id, taken.attempt) == (job_id, 2)


def test_a_sign_of_life_keeps_a_job_and_shows_its_progress(store, leases, database):
    job_id, _ = store.submit(new_job())
    leases.claim("a")
    let_lease_run_out(database, job_id)
    assert leases.heartbeat({(job_id, 1): [StageProgress(stage="refiner", done=3, total=8)]}) == set()
    assert leases.claim("b") is None
    assert store.status(job_id, "anna").progress == [StageProgress(stage="refiner", done=3, total=8)]


def test_a_runner_that_lost_its_lease_can_write_nothing(store, leases, database):
    job_id, _ = store.submit(new_job())
    leases.claim("a")
    let_lease_run_out(database, job_id)
    leases.claim("b")
    stale = (job_id, 1)
    assert leases.heartbeat({stale: []}) == {stale}
    assert not leases.finish(*stale, 10)
    assert not leases.fail(*stale, "no")
    assert not leases.retry(*stale, "no")
    assert not leases.give_back(*stale)
    assert store.status(job_id, "anna").state == "running"
    assert leases.finish(job_id, 2, 77)
    assert store.status(job_id, "anna").result_bytes == 77
    assert store.result_attempt(job_id, "anna") == 2


def test_a_cancelled_job_is_over_for_its_runner_and_for_all_others(store, leases):
    job_id, _ = store.submit(new_job())
    leases.claim("a")
    assert store.cancel(job_id, "anna").state == "cancelled"
    assert leases.heartbeat({(job_id, 1): []}) == {(job_id, 1)}
    assert not leases.finish(job_id, 1, 5)
    assert leases.claim("b") is None
    assert store.status(job_id, "anna").state == "cancelled"


def test_a_job_that_has_ended_stays_as_it_is_when_it_is_cancelled(store, leases):
    job_id, _ = store.submit(new_job())
    leases.claim("a")
    leases.finish(job_id, 1, 5)
    assert store.cancel(job_id, "anna").state == "succeeded"


def test_a_failed_attempt_is_repeated_after_a_pause_until_the_last_one(store, leases, database):
    job_id, _ = store.submit(new_job())
    for attempt in (1, 2):
        assert leases.claim("a").attempt == attempt
        assert leases.retry(job_id, attempt, "the node is gone")
        assert leases.claim("a") is None  # it waits a second or more
        assert store.status(job_id, "anna").state == "queued"
        with database.writing() as connection:
            connection.execute(update(jobs).values(not_before=0.0))
    leases.claim("a")
    assert leases.retry(job_id, 3, "the node is gone")
    ended = store.status(job_id, "anna")
    assert (ended.state, ended.error) == ("failed", "the node is gone (attempt 3 of 3)")


def test_a_job_whose_runners_die_every_time_ends_as_failed(store, leases, database):
    job_id, _ = store.submit(new_job())
    for _ in range(3):
        assert leases.claim("a") is not None
        let_lease_run_out(database, job_id)
    assert leases.claim("a") is None
    ended = store.status(job_id, "anna")
    assert ended.state == "failed"
    assert "died" in ended.error


def test_a_runner_that_stops_orderly_costs_the_job_no_attempt(store, leases):
    job_id, _ = store.submit(new_job())
    for attempt in range(1, 8):  # more often than a job may fail
        assert leases.claim("a").attempt == attempt
        assert leases.give_back(job_id, attempt)
    assert leases.claim("a").attempt == 8
    assert not leases.finish(job_id, 7, 5)


def test_the_same_key_and_request_are_the_same_job(store):
    first, _ = store.submit(new_job(key="k"))
    assert store.submit(new_job(key="k")) == (first, False)
    assert store.submit(new_job(owner="ben", key="k"))[1]  # keys of another owner are others
    assert store.submit(new_job())[1]
    assert len(store.list(None)) == 3


def test_the_same_key_with_another_request_is_refused(store):
    store.submit(new_job(key="k"))
    with pytest.raises(KeyReusedError, match="'k' was used for another request"):
        store.submit(new_job(key="k", digest="2" * 64))


def test_many_clients_with_one_key_make_one_job(store):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: store.submit(new_job(key="k")), range(40)))
    assert len({job_id for job_id, _ in answers}) == 1
    assert sum(is_new for _, is_new in answers) == 1


def test_others_jobs_do_not_exist(store):
    job_id, _ = store.submit(new_job())
    for look in (store.status, store.cancel, store.result_attempt):
        with pytest.raises(UnknownJobError):
            look(job_id, "ben")
    assert store.list("ben") == []
    assert store.status(job_id, None).state == "queued"  # an administrator


def test_a_full_queue_and_an_owner_with_too_many_jobs_are_refused(database):
    store = JobStore(database, max_queued=3, jobs_per_owner=2)
    for _ in range(2):
        store.submit(new_job())
    with pytest.raises(OwnerBusyError, match="anna has 2 unfinished jobs") as refused:
        store.submit(new_job())
    assert refused.value.retry_after_s == 5  # nothing is known yet of how long jobs take
    store.submit(new_job(owner="ben"))
    with pytest.raises(QueueFullError, match="3 jobs are waiting"):
        store.submit(new_job(owner="ben"))


def test_limits_hold_when_many_submit_at_once(database):
    store = JobStore(database, max_queued=5, jobs_per_owner=100)

    def submit(_: int) -> bool:
        try:
            return store.submit(new_job())[1]
        except QueueFullError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(submit, range(40))) == 5
    assert store.counts() == {"queued": 5}


def test_an_owner_may_ask_a_burst_and_then_at_the_steady_rate(database):
    allowance = RateLimiter(database, per_minute=60, burst=3)
    for _ in range(3):
        allowance.take("anna")
    with pytest.raises(OwnerBusyError) as refused:
        allowance.take("anna")
    assert 0 < refused.value.retry_after_s <= 1
    allowance.take("ben")
    time.sleep(1.05)  # one request a second
    allowance.take("anna")
    with pytest.raises(OwnerBusyError):
        allowance.take("anna")


def test_the_end_is_estimated_from_how_long_the_last_jobs_took(store, leases, database):
    done, _ = store.submit(new_job(pairs=2))
    leases.claim("a")
    leases.finish(done, 1, 5)
    with database.writing() as connection:
        connection.execute(update(jobs).values(started=1000.0, ended=1008.0))  # 4 s a pair
    running, _ = store.submit(new_job(pairs=3))
    leases.claim("a")
    waiting, _ = store.submit(new_job(pairs=2))
    assert store.status(done, "anna").eta_s is None
    assert store.status(running, "anna").eta_s == pytest.approx(12, abs=2)
    assert store.status(waiting, "anna").eta_s == pytest.approx(20)  # 3 pairs before it and 2 of its own
    leases.heartbeat({(running, 1): [StageProgress(stage="s", done=1, total=2)]})
    with database.writing() as connection:
        now = database.now(connection)
        connection.execute(update(jobs).where(jobs.c.id == running).values(started=now - 50))
    assert store.status(running, "anna").eta_s == pytest.approx(50, abs=2)  # half of it took 50 s


STAGES = (("mask_generator", 8, 0.1), ("image_sequence_generator", 10, 0.05), ("refiner", 3, 2.0))
"""(stage, units of a pair, seconds of a unit)."""


def progress_at(elapsed: float, pairs: int, slowness: float) -> list[StageProgress]:
    """Of a job whose pairs go through the stages one after the other."""
    found = []
    for name, units, seconds in STAGES:
        done = min(int(elapsed / (seconds * slowness)), units * pairs)
        if done:
            spent = done * seconds * slowness
            found.append(StageProgress(stage=name, done=done, total=units * pairs, seconds=spent))
            elapsed -= spent
        if done < units * pairs:
            return found
    return found


def test_from_a_fifth_on_the_end_is_known_within_30_percent_in_the_median(store, leases, database):
    rng = np.random.default_rng(0)
    per_pair = sum(units * seconds for _, units, seconds in STAGES)
    for _ in range(3):
        job_id, _ = store.submit(new_job(pairs=2))
        leases.claim("a")
        leases.finish(job_id, 1, 5, progress_at(1e9, 2, 1.0))
    errors = []
    for _ in range(20):
        pairs, slowness = int(rng.integers(1, 6)), float(rng.uniform(0.5, 3))
        whole = per_pair * pairs * slowness
        elapsed = whole * float(rng.uniform(0.2, 0.95))
        job_id, _ = store.submit(new_job(pairs=pairs))
        leases.claim("a")
        leases.heartbeat({(job_id, 1): progress_at(elapsed, pairs, slowness)})
        with database.writing() as connection:
            started = database.now(connection) - elapsed
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(started=started))
        errors.append(abs(store.status(job_id, "anna").eta_s - (whole - elapsed)) / (whole - elapsed))
        leases.fail(job_id, 1, "enough")
    assert np.median(errors) < 0.3


def test_jobs_that_ended_long_ago_are_forgotten_and_others_are_not(store, leases, database):
    old, recent, queued = (store.submit(new_job(key=key))[0] for key in "abc")
    for job_id in (old, recent):
        leases.claim("a")
        leases.finish(job_id, 1, 5)
    with database.writing() as connection:
        ended = database.now(connection) - 100
        connection.execute(update(jobs).where(jobs.c.id == old).values(ended=ended))
    assert leases.remove_ended(older_than_s=50) == [old]
    assert leases.known() == {recent, queued}
    assert store.submit(new_job(key="a"))[1]  # its key is free again


_CLAIM_ALL = """
import sys, time
from medgen3d.serving.queue.database import Database
from medgen3d.serving.queue.leases import Leases
leases = Leases(Database(sys.argv[1]), lease_s=60, max_attempts=3)
print("ready", flush=True)
sys.stdin.readline()
while (job := leases.claim(sys.argv[2])) is not None:
    print(job.id, flush=True)
    time.sleep(0.03)  # as long as SQLite lets a writer wait, so that both get their turn
"""


def test_several_processes_never_claim_a_job_twice(url, store):
    ids = [store.submit(new_job())[0] for _ in range(40)]
    command = [sys.executable, "-c", _CLAIM_ALL, url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "a"], **pipes) as one, subprocess.Popen([*command, "b"], **pipes) as other:
        for process in (one, other):
            assert process.stdout.readline() == "ready\n"
        for process in (one, other):
            process.stdin.write("go\n")
            process.stdin.flush()
        claimed = [process.communicate(timeout=60)[0].split() for process in (one, other)]
    assert Counter(claimed[0] + claimed[1]) == Counter(ids)
    assert all(claimed)


_HOLD = """
import sys, time
from medgen3d.serving.queue.database import Database
from medgen3d.serving.queue.leases import Leases
leases = Leases(Database(sys.argv[1]), lease_s=1.0, max_attempts=3)
job = leases.claim("doomed")
print(job.id, flush=True)
while True:
    leases.heartbeat({(job.id, job.attempt): []})
    time.sleep(0.1)
"""


def test_a_job_whose_process_is_killed_is_claimed_by_another_when_the_lease_has_run_out(url, store, leases):
    job_id, _ = store.submit(new_job())
    with subprocess.Popen([sys.executable, "-c", _HOLD, url], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline().strip() == job_id
        time.sleep(1.5)  # longer than a lease: signs of life keep it
        assert leases.claim("other") is None
        os.kill(holder.pid, signal.SIGKILL)
    until = time.monotonic() + 60
    while (taken := leases.claim("other")) is None:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert (taken.id, taken.attempt) == (job_id, 2)


def test_readers_do_not_wait_for_a_writer(store, database):
    job_id, _ = store.submit(new_job())
    seen = []
    with database.writing() as connection:
        connection.execute(update(jobs).values(error="not yet"))
        reader = threading.Thread(target=lambda: seen.append(store.status(job_id, "anna").error))
        reader.start()
        reader.join(5)
    assert seen == [""]
