import re
from pathlib import Path

import numpy as np
import pytest

from medgen3d.artifacts.case_status import STATUS_RULES, CaseStatus, CaseStatuses

ARTIFACTS = Path(__file__).parents[4] / "docs" / "artifacts.md"


def test_every_status_has_a_rule_and_can_be_reached_from_a_missing_case():
    reached = {CaseStatus.MISSING}
    for _ in CaseStatus:
        reached |= {status for known in reached for status in STATUS_RULES[known].may_become}
    assert reached == set(STATUS_RULES) == set(CaseStatus)


def test_the_page_of_files_explains_exactly_the_recorded_statuses():
    (row,) = re.findall(r"^\| `status` \| string \| (.*) \|$", ARTIFACTS.read_text(), re.MULTILINE)
    recorded = [f"`{status}`: {rule.meaning}" for status, rule in STATUS_RULES.items() if rule.is_recorded]
    assert row == "; ".join(recorded)


def test_a_case_is_open_until_it_is_done_or_given_up():
    statuses = CaseStatuses(5)
    for number, status in enumerate((CaseStatus.DONE, CaseStatus.FAILED, CaseStatus.REJECTED, CaseStatus.DONE)):
        statuses[number] = status
    statuses[3] = CaseStatus.DAMAGED

    assert statuses.open.tolist() == [2, 3, 4]
    assert np.flatnonzero(statuses.are(CaseStatus.DONE, CaseStatus.MISSING)).tolist() == [0, 4]


def test_a_step_that_the_table_does_not_allow_is_a_bug_and_is_refused():
    statuses = CaseStatuses(1)
    statuses[0] = CaseStatus.DONE
    with pytest.raises(ValueError, match="case 0 is done and cannot become rejected"):
        statuses[0] = CaseStatus.REJECTED
    statuses[0] = CaseStatus.DONE  # no change
    assert statuses[0] == CaseStatus.DONE
