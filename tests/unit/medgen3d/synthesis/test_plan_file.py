import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medgen3d.artifacts import nifti
from medgen3d.artifacts.bundle import read_bundle
from medgen3d.artifacts.planned_case import plan_case
from medgen3d.artifacts.storage import Folder
from medgen3d.core.errors import ConfigError, DataError
from medgen3d.core.volume import Volume, affine_from_spacing
from medgen3d.synthesis.plan import PLAN, SynthesisPlan, write_plan
from medgen3d.synthesis.plan_file import read_plan


@pytest.fixture(scope="module")
def dataset(tiny_pipeline):
    return read_bundle(tiny_pipeline["refiner"]).info.dataset  # bone 7 and cartilage 300, 3 x 0.5 x 0.75 mm, 16 x 24


@pytest.fixture
def read(dataset, tmp_path):
    def make(text, name="plan.yaml"):
        (tmp_path / name).write_text(text)
        return read_plan(tmp_path / name, dataset, seed=4)

    return make


@pytest.fixture
def mask(tmp_path):
    """mask.nii.gz of 4 slices, 10 x 20, all bone."""
    volume = Volume(voxels=np.full((4, 10, 20), 7, np.uint16), affine=affine_from_spacing((3.0, 0.5, 0.75)))
    nifti.write(tmp_path / "mask.nii.gz", volume)
    return tmp_path / "mask.nii.gz"


EVERYTHING = """
cases:
  - {count: 2, depth: 5}
  - {seed: 9, style: 3, spacing_mm: [3, 1, 1]}
  - {targets: [bone.volume_ml > 0.1, cartilage.holes < 2], best_of: 3}
"""
AS_CSV = """count,depth,seed,style,spacing_mm,targets,best_of
2,5,,,,,
,,9,3,3 x 1 x 1,,
,,,,,bone.volume_ml > 0.1; cartilage.holes < 2,3
"""


def test_a_plan_says_case_by_case_what_is_to_be_drawn(read, dataset):
    plan = read(EVERYTHING)
    first, second, own, aimed = plan

    assert plan.count == 4
    assert [case.case_id for case in plan] == [f"syn_0000{number}" for number in range(4)]
    assert [case.shape[0] for case in (first, second)] == [5, 5]
    assert first.seeds == plan_case(4, 0, dataset.shapes).seeds
    assert (own.number, own.style, own.spacing_mm) == (2, 3, (3, 1, 1))
    assert (own.seeds, own.shape) == (plan_case(9, 0, dataset.shapes).seeds, plan_case(9, 0, dataset.shapes).shape)
    assert aimed.targets == ("bone.volume_ml > 0.1", "cartilage.holes < 2")
    assert (aimed.best_of, first.best_of) == (3, 1)


def test_yaml_csv_and_parquet_say_the_same(read, dataset, tmp_path):
    rows = [
        {"count": 2, "depth": 5},
        {"seed": 9, "style": 3, "spacing_mm": [3.0, 1.0, 1.0]},
        {"targets": ["bone.volume_ml > 0.1", "cartilage.holes < 2"], "best_of": 3},
    ]
    columns = dict.fromkeys(("count", "depth", "seed", "style", "spacing_mm", "targets", "best_of"))
    pq.write_table(pa.Table.from_pylist([columns | row for row in rows]), tmp_path / "a.parquet")
    plans = [read(EVERYTHING), read(AS_CSV, "plan.csv"), read_plan(tmp_path / "a.parquet", dataset, seed=4)]

    assert list(plans[0]) == list(plans[1]) == list(plans[2])
    assert len({plan.digest for plan in plans}) == 1


def test_balancing_asks_each_case_in_turn_for_one_of_the_labels(read):
    plan = read("balance: [bone, cartilage]\ncases: [{count: 3}]")
    labels = ["bone", "cartilage", "bone"]
    assert [case.targets for case in plan] == [(f"{label}.volume_ml > 0",) for label in labels]
    assert {case.best_of for case in plan} == {8}


def test_masks_are_found_beside_the_plan_and_decide_the_size(read, mask):
    whole, partial = read('cases: [{mask: mask.nii.gz}, {partial_mask: mask.nii.gz, known_slices: "0-1, 3"}]')

    assert (whole.mask, whole.shape) == (str(mask), (4, 10, 20))
    assert (partial.partial_mask, partial.known_slices) == (str(mask), (0, 1, 3))


def test_the_digest_follows_from_content_and_masks_alone(read, mask):
    text = "cases: [{mask: mask.nii.gz}]"
    before, again, other = read(text).digest, read(text, "b.yaml").digest, read("cases: [{style: 1}]").digest
    nifti.write(mask, Volume(voxels=np.zeros((4, 10, 20), np.uint16), affine=affine_from_spacing((3.0, 0.5, 0.75))))

    assert before == again
    assert len({before, other, read(text).digest}) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cases: []", "plans no case"),
        ("[]", "expected `cases`"),
        ("cases: [{colour: 3}]", "row 0: colour: Extra inputs are not permitted"),
        ("cases: [{}, {depth: 0}]", "row 1: depth: Input should be greater than 0, got 0"),
        ("cases: [{seed: -1}]", "row 0: seed"),
        ("cases: [{targets: [bone > 3]}]", "case 0: 'bone > 3' is no target"),
        ("balance: [femur]\ncases: [{}]", "'femur.volume_ml > 0' is no target"),
        ("cases: [{mask: mask.nii.gz, depth: 4}]", "depth follows from the mask"),
        ("cases: [{partial_mask: mask.nii.gz}]", "partial_mask and known_slices belong together"),
        ("cases: [{partial_mask: mask.nii.gz, known_slices: [4]}]", "known_slices go up to 4, but the mask has 4"),
        ("cases: [", "cannot be read as a plan"),
    ],
)
def test_a_wrong_plan_is_refused_and_the_row_named(read, mask, text, words):
    with pytest.raises(ConfigError, match=words):
        read(text)


def test_a_mask_that_does_not_fit_the_pipeline_is_refused_before_any_work(read, mask):
    nifti.write(mask, Volume(voxels=np.full((4, 10, 20), 5, np.uint16), affine=affine_from_spacing((3.0, 0.5, 0.75))))
    with pytest.raises(DataError, match=r"found the labels 5, expected only \{0: 'background'"):
        read("cases: [{mask: mask.nii.gz}]")
    nifti.write(mask, Volume(voxels=np.zeros((4, 17, 20), np.uint16), affine=affine_from_spacing((3.0, 0.5, 0.75))))
    with pytest.raises(DataError, match=r"found slices of \(17, 20\), expected at most \(16, 24\)"):
        read("cases: [{mask: mask.nii.gz}]")


@pytest.mark.parametrize("name", ["plan.txt", "absent.yaml"])
def test_a_file_that_is_no_plan_is_refused(dataset, tmp_path, name):
    with pytest.raises(ConfigError):
        read_plan(tmp_path / name, dataset, seed=0)


def test_the_plan_in_the_set_is_the_plan_that_is_drawn(read, tmp_path):
    plan = read(EVERYTHING)
    write_plan(Folder.of(tmp_path), plan)
    rows = pq.read_table(tmp_path / PLAN)

    assert list(SynthesisPlan(count=4, seed=4, shapes=plan.shapes, rows=rows)) == list(plan)
    assert plan.case(5) == plan_case(4, 5, plan.shapes)  # beyond the plan: fills a batch


def test_a_longer_plan_replaces_a_shorter_one_and_not_the_other_way_round(dataset, tmp_path):
    for count, expected in ((3, 3), (7, 7), (2, 7)):
        write_plan(Folder.of(tmp_path), SynthesisPlan(count=count, seed=0, shapes=dataset.shapes))
        assert pq.read_table(tmp_path / PLAN).num_rows == expected
