from medgen3d.serving.job_states import FINAL, STATES, UNFINISHED, JobState, origins


def test_a_job_that_has_ended_stays_as_it_is():
    assert FINAL == (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
    assert UNFINISHED == (JobState.QUEUED, JobState.RUNNING)
    for state in JobState:
        assert not set(origins(state)) & set(FINAL)


def test_every_state_has_its_facts_and_can_be_reached_from_the_first():
    assert set(STATES) == set(JobState)
    reached = {JobState.QUEUED}
    while more := {state for origin in reached for state in STATES[origin].next} - reached:
        reached |= more
    assert reached == set(JobState)


def test_only_a_runner_can_make_a_job_succeed_or_fail():
    assert origins(JobState.SUCCEEDED) == origins(JobState.FAILED) == [JobState.RUNNING]
    assert origins(JobState.CANCELLED) == [JobState.QUEUED, JobState.RUNNING]
