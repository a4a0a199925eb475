import pytest

from medgen3d.serving.on_ray.app import ingress_processes


@pytest.mark.parametrize(
    ("chosen", "cpus", "is_shared", "number"),
    [(None, 4, True, 2), (None, 64, False, 1), (None, 2, True, 1), (1, 64, True, 1), (5, 2, False, 5)],
)
def test_two_processes_answer_where_there_is_room_and_both_reach_the_database(chosen, cpus, is_shared, number):
    assert ingress_processes(chosen, cpus=cpus, is_shared=is_shared) == number
