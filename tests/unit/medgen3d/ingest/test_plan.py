"""The plan: what follows from the facts of all cases together, with numbers worked out by hand."""

from pathlib import Path

import pytest

from medgen3d.artifacts.intensity import Intensity
from medgen3d.config.experiment import IngestConfig
from medgen3d.core.errors import DataError
from medgen3d.ingest.plan import make_ingest_plan
from medgen3d.ingest.problems import BadCasesError, CaseProblem
from medgen3d.ingest.request import make_request
from medgen3d.ingest.sources import Pair, Source
from medgen3d.ingest.verify import CaseFacts, Verification

FACTS = CaseFacts(
    shape=(10, 20, 30),
    spacing_mm=(2.0, 1.0, 1.0),
    axis_codes="LPS",
    intensity=Intensity(low=0, high=100),
    labels_found=(0, 5),
    sha256={"a": "0" * 64},
)
BROKEN = CaseProblem(case="bad", kind="empty mask", found="nothing", expected="a label", remedy="Label it.")


def sound(case: str, **changes: object) -> Verification:
    return Verification(case=case, facts=FACTS.model_copy(update=changes), problems=())


def planned(verifications, config=None, *, skip_bad=False, source_problems=(), root=Path("/data/set"), **choices):
    source = Source(
        root=root,
        name="set",
        modality="MR",
        pairs=[Pair(case=one.case, image=root / one.case, mask=root / one.case) for one in verifications],
        problems=list(source_problems),
    )
    given = {"name": None, "seed": 0, "labels_file": None, "patient_regex": None, "patients_csv": None} | choices
    return make_ingest_plan(make_request(source, config or IngestConfig(), **given), verifications, skip_bad=skip_bad)


def test_the_plane_is_the_smallest_multiple_of_8_that_holds_every_case():
    info = planned([sound("a", shape=(10, 17, 30)), sound("b", shape=(12, 16, 33))]).info
    assert info.plane == (24, 40)
    assert info.cropped == []
    assert [entry.shape for entry in info.cases] == [(10, 17, 30), (12, 16, 33)]


def test_a_given_plane_crops_larger_cases_and_lists_them():
    info = planned([sound("a"), sound("b", shape=(10, 25, 30))], IngestConfig(plane=(24, 24))).info
    assert (info.plane, info.cropped) == ((24, 24), ["a", "b"])
    assert [entry.shape for entry in info.cases] == [(10, 20, 24), (10, 24, 24)]


def test_the_voxel_size_is_the_median_of_each_axis_and_shapes_follow():
    verifications = [sound("a"), sound("b", spacing_mm=(3.0, 0.5, 1.0)), sound("c", spacing_mm=(4.0, 2.0, 1.0))]
    info = planned(verifications).info
    assert info.spacing_mm == (3, 1, 1)
    # 10 slices of 2 mm are 6.7 of 3 mm; 20 rows of 0.5 mm are 10 of 1 mm; 10 slices of 4 mm are 13.3 of 3 mm
    assert [entry.shape for entry in info.cases] == [(7, 20, 30), (10, 10, 30), (13, 40, 30)]


def test_a_given_voxel_size_wins():
    info = planned([sound("a")], IngestConfig(spacing_mm=(1, 1, 2))).info
    assert info.spacing_mm == (1, 1, 2)
    assert info.cases[0].shape == (20, 20, 15)


def test_slices_are_counted_on_the_training_grid():
    config = IngestConfig(spacing_mm=(5, 1, 1))
    with pytest.raises(BadCasesError) as caught:
        planned([sound("a", shape=(8, 20, 30)), sound("b")], config)
    (problem,) = caught.value.problems
    assert (problem.case, problem.kind) == ("a", "too few slices")
    assert (problem.found, problem.expected) == ("3 slices of 5 mm", "at least 4")
    assert "ingest.min_slices" in problem.remedy
    planned([sound("a", shape=(8, 20, 30)), sound("b")], config.model_copy(update={"min_slices": 3}))


def test_the_orientation_is_the_most_common_one():
    assert planned([sound("a", axis_codes="RAS"), sound("b"), sound("c")]).info.axis_codes == "LPS"


@pytest.mark.parametrize(
    ("low", "high", "are_whole", "dtype"),
    [
        (-1000, 1000, (True, True, True), "int16"),
        (0, 13883, (True, True, True), "int16"),  # whatever the files were stored as
        (0, 40000, (True, True, True), "uint16"),
        (0, 70000, (True, True, True), "float32"),
        (-1, 40000, (True, True, True), "float32"),
        (0, 1, (True, False, True), "float32"),  # as whole numbers they would be 0 and 1
    ],
)
def test_the_voxel_type_holds_the_values_of_all_training_images(low, high, are_whole, dtype):
    cases = [
        sound(str(number), is_whole=is_whole, intensity=Intensity(low=low, high=high))
        for number, is_whole in enumerate(are_whole)
    ]
    assert planned(cases, IngestConfig(split_shares=(1, 0, 0))).info.image_dtype == dtype


def test_cases_without_an_orientation_are_refused_among_cases_that_have_one():
    with pytest.raises(BadCasesError, match="case b: unknown orientation"):
        planned([sound("a"), sound("b", is_oriented=False)])
    assert planned([sound("a", is_oriented=False), sound("b", is_oriented=False)]).info.case_ids() == ["a", "b"]


def test_notes_name_their_cases_and_change_no_plan():
    plain = planned([sound("a"), sound("b")])
    noted = planned([sound("a", notes=("odd",)), sound("b", notes=("odd", "strange"))])
    assert noted.info.notes == {"odd": ["a", "b"], "strange": ["b"]}
    assert noted.hash == plain.hash


def test_a_label_that_no_case_has_is_told():
    config = IngestConfig(labels={5: "liver", 7: "spleen"})
    assert planned([sound("a")], config).info.notes == {"label 7 (spleen) is declared, but no case has it": []}


def test_the_reserved_name_ignore_is_no_label():
    info = planned([sound("a")], IngestConfig(labels={5: "liver", 6: "ignore"})).info
    assert info.labels == {0: "background", 5: "liver"}


@pytest.mark.parametrize("labels", [{0: "ignore", 5: "liver"}, {3: "background", 5: "liver"}])
def test_reserved_names_of_other_ids_are_refused(labels):
    with pytest.raises(DataError, match="Correct the labels"):
        planned([sound("a")], IngestConfig(labels=labels))


def test_the_inverse_is_the_median_of_the_training_cases_alone():
    verifications = [
        sound(f"{number:02d}", intensity=Intensity(low=number, high=100 + number**2)) for number in range(10)
    ]
    info = planned(verifications).info
    lows = sorted(int(case) for case in info.case_ids("train"))
    assert len(lows) == 7
    assert info.inverse == Intensity(low=lows[3], high=100 + lows[3] ** 2)


def test_labels_that_were_found_are_declared_and_named_after_their_ids():
    info = planned([sound("a", labels_found=(0, 117)), sound("b", labels_found=(5,))]).info
    assert info.labels == {0: "background", 5: "label_5", 117: "label_117"}


def test_declared_labels_stay_even_if_no_case_has_them():
    info = planned([sound("a")], IngestConfig(labels={5: "five", 6: "six"})).info
    assert info.labels == {0: "background", 5: "five", 6: "six"}


def test_cases_of_one_patient_stay_in_one_split():
    verifications = [sound(f"p{number // 4}_{number % 4}") for number in range(40)]
    info = planned(verifications, patient_regex=r"^(p\d)_").info
    assert len({(entry.patient, entry.split) for entry in info.cases}) == 10
    assert info.patients_known
    assert [len(info.case_ids(split)) for split in ("train", "validation", "test")] == [28, 4, 8]


def test_bad_cases_are_refused_all_at_once():
    bad = Verification(case="bad", facts=None, problems=(BROKEN,))
    unsafe = BROKEN.model_copy(update={"case": "away", "kind": "unsafe path"})
    with pytest.raises(BadCasesError) as caught:
        planned([sound("a"), bad], source_problems=[unsafe])
    assert [problem.case for problem in caught.value.problems] == ["away", "bad"]
    assert caught.value.num_cases == 3


def test_skipped_cases_are_listed_with_their_reasons_and_count_for_nothing():
    second = BROKEN.model_copy(update={"kind": "shape mismatch"})
    bad = Verification(case="bad", facts=None, problems=(BROKEN, second))
    plan = planned([sound("a"), bad, sound("thin", shape=(1, 99, 99))], skip_bad=True)
    assert [case.pair.case for case in plan.cases] == ["a"]
    assert plan.info.plane == (24, 32)
    assert set(plan.info.skipped) == {"bad", "thin"}
    assert plan.info.skipped["bad"] == (
        "empty mask: found nothing, expected a label; shape mismatch: found nothing, expected a label"
    )


def test_a_set_without_a_good_case_is_refused_even_if_bad_ones_are_skipped():
    with pytest.raises(BadCasesError):
        planned([Verification(case="bad", facts=None, problems=(BROKEN,))], skip_bad=True)


def test_the_order_of_the_verifications_does_not_matter():
    verifications = [sound("a"), sound("b", shape=(9, 9, 9)), sound("c", axis_codes="RAS")]
    assert planned(verifications).info == planned(verifications[::-1]).info


def test_the_hash_follows_the_content_and_not_the_place_of_the_files():
    verifications = [sound("a"), sound("b")]
    one = planned(verifications)
    assert planned(verifications, root=Path("/elsewhere/set")).hash == one.hash
    assert planned([sound("a"), sound("b", sha256={"a": "1" * 64})]).hash != one.hash
    assert planned([sound("a"), sound("b", intensity=Intensity(low=0, high=99))]).hash != one.hash
    assert planned(verifications, seed=1).hash != one.hash
    assert planned(verifications, IngestConfig(plane=(64, 64))).hash != one.hash
