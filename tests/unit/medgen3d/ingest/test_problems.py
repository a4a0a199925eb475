"""The error that carries the table of problems."""

import pickle

from medgen3d.ingest.problems import BadCasesError, CaseProblem

PROBLEMS = [
    CaseProblem(case=case, kind="empty mask", found="background only", expected="a label", remedy="Label the case.")
    for case in ("a", "b", "b")
]


def test_the_sentence_counts_problems_and_cases_and_names_the_first_and_the_way_out():
    assert str(BadCasesError(PROBLEMS, 9)) == (
        "3 problems in 2 of 9 cases, so nothing was written; the first: case a: empty mask: found background only, "
        "expected a label. Label the case. Mend them, or leave these cases out with --skip-bad."
    )


def test_the_table_survives_pickling():
    copy = pickle.loads(pickle.dumps(BadCasesError(PROBLEMS, 9)))
    assert (copy.problems, copy.num_cases) == (PROBLEMS, 9)
