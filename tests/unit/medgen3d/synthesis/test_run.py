import json
import shutil

import numpy as np
import pytest

from medgen3d.artifacts import nifti
from medgen3d.artifacts.synthetic_set import merge_parts, open_for_writing
from medgen3d.config.experiment import SynthesisConfig
from medgen3d.core.errors import ArtifactError, ConfigError, DataError
from medgen3d.core.volume import Volume, affine_from_spacing
from medgen3d.measures.limits import CaseLimits
from medgen3d.synthesis.case_ledger import DONE
from medgen3d.synthesis.gates import GateRules
from medgen3d.synthesis.run import open_run
from medgen3d.synthesis.run_options import RunOptions
from medgen3d.synthesis.set_writer import write_batch
from medgen3d.synthesis.summary import summarise


@pytest.fixture
def job_for(tiny_pipeline, tmp_path):
    def make(count=6, seed=0, out="out", version=1, options=None, masks=None, ordered=None, **settings):
        config = SynthesisConfig(**{"batch": 4} | settings)
        order = RunOptions(options=options or {}, masks=masks, **ordered or {})
        return open_run(tiny_pipeline, "knee", version, count, seed, tmp_path / out, config, order)

    return make


@pytest.fixture
def masks(tmp_path):
    """Three masks in the layout of a Decathlon folder; mask n has 4 + n slices."""
    root = tmp_path / "masks"
    root.mkdir()
    affine = affine_from_spacing((3.0, 0.5, 0.75))
    for number in range(3):
        nifti.write(root / f"{number}.nii.gz", Volume(voxels=np.zeros((4 + number, 10, 20), np.uint8), affine=affine))
    entries = [{"label": f"{number}.nii.gz"} for number in range(3)]
    (root / "dataset.json").write_text(json.dumps({"labels": {"7": "bone", "300": "cartilage"}, "training": entries}))
    return root


def wanted(job):
    """Number of each batch that is to be drawn -> its cases that are missing."""
    return {item.numbers[0] // job.info.batch: list(item.wanted) for item in job.standing.next_items(99)}


def drawn_beside(job, batch):
    """The plans of all cases that are drawn in a batch."""
    item = next(item for item in job.standing.next_items(99) if item.numbers[0] == batch * job.info.batch)
    return [case.plan for case in job.work_of(0, item).cases]


def write_blank(job, batch):
    """Batch by batch what the workers do, without drawing."""
    open_for_writing(job.folder.location, job.info)
    item = next(item for item in job.standing.next_items(99) if item.numbers[0] == batch * job.info.batch)
    return write_batch(job.work_of(0, item), job.dataset, job.info, job.folder.location, max_redraws=5)


def test_a_new_folder_lacks_everything_and_stays_untouched(job_for, tmp_path):
    job = job_for()
    assert wanted(job) == {0: [0, 1, 2, 3], 1: [4, 5]}
    assert [case.number for case in drawn_beside(job, 1)] == [4, 5, 6, 7]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("use_gpu", "width"), [(None, 1), (False, 1), (True, 8)])
def test_cases_advance_alone_on_cpus_and_by_eight_on_gpus_unless_a_number_is_chosen(job_for, use_gpu, width):
    assert job_for(batch=None, use_gpu=use_gpu).info.batch == width
    assert len(drawn_beside(job_for(batch=None, use_gpu=use_gpu), 0)) == width
    assert job_for(batch=3, use_gpu=use_gpu).info.batch == 3


def test_cases_that_are_whole_are_kept_also_when_their_rows_are_not_merged_yet(job_for):
    write_blank(job_for(), 0)
    assert wanted(job_for()) == {1: [4, 5]}
    merge_parts(job_for().folder.location)
    assert wanted(job_for()) == {1: [4, 5]}
    assert list(job_for(count=3).standing.missing) == []
    assert job_for(count=3).standing.count(DONE) == 3


def test_a_damaged_and_a_missing_file_are_drawn_again(job_for):
    job = job_for()
    write_blank(job, 0)
    (job.folder.path() / "images" / "syn_00001.nii.gz").write_bytes(b"half")
    (job.folder.path() / "labels" / "syn_00003.nii.gz").unlink()
    assert wanted(job_for()) == {0: [1, 3], 1: [4, 5]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 9}, "seed 0 there and 9 now"),
        ({"version": 2}, "pipeline_version 1 there and 2 now"),
        ({"threads": 2}, "threads 1 there and 2 now"),
    ],
)
def test_another_seed_pipeline_or_arithmetic_is_refused(job_for, change, words):
    write_blank(job_for(), 0)
    with pytest.raises(DataError, match=words):
        job_for(**change)


def test_the_number_of_actors_may_change_between_runs(job_for):
    write_blank(job_for(), 0)
    assert wanted(job_for(num_actors={"mask_generator": 3})) == {1: [4, 5]}


def test_options_that_are_named_are_part_of_the_identity_and_recorded(job_for):
    plain, other = job_for(), job_for(options={"refiner": {"start": 0.35, "sampling_steps": 3}, "mask_generator": {}})

    assert plain.info.sampling == {}
    assert other.info.sampling == {"refiner": {"start": 0.35}}  # the bundle has 3 steps itself
    assert other.info.config_hash != plain.info.config_hash
    assert other.bundles["refiner"].config().start == 0.35
    write_blank(plain, 0)
    with pytest.raises(DataError, match=r"sampling \{\} there and \{'refiner': \{'start': 0.35\}\} now"):
        job_for(options={"refiner": {"start": 0.35}})


def test_without_refinement_the_refiner_neither_draws_nor_counts(job_for):
    job = job_for(refine=False)
    assert job.stages == ("mask_generator", "image_sequence_generator")
    assert not job.info.refined
    assert job.info.weights_sha256.keys() == {"mask_generator", "image_sequence_generator"}
    assert job.info.config_hash == job_for(refine=False, options={"refiner": {"start": 0.35}}).info.config_hash
    assert job_for(refine=False, options={"refiner": {"start": 0.35}}).info.sampling == {}


def test_given_masks_decide_sizes_and_how_many_cases_there_are_but_no_stream(job_for, masks):
    drawn, job = job_for(), job_for(masks=masks)

    assert job.stages == ("image_sequence_generator", "refiner")
    assert (job.plan.count, wanted(job)) == (3, {0: [0, 1, 2]})
    assert [plan.shape for plan in drawn_beside(job, 0)] == [(4, 10, 20), (5, 10, 20), (6, 10, 20)]  # no fourth mask
    assert [plan.seeds for plan in drawn_beside(job, 0)] == [plan.seeds for plan in drawn_beside(drawn, 0)[:3]]
    assert job.info.masks_digest == job.given.digest
    assert drawn.info.masks_digest is None
    assert "mask_generator" not in job.info.weights_sha256
    assert len(drawn_beside(job_for(masks=masks, count=2), 0)) == 3  # the neighbours do not depend on the count


def test_a_summary_counts_sizes_and_bytes(job_for):
    summary = summarise(job_for(count=50), 0)

    assert sum(summary.shapes.values()) == 50
    voxels = {(5, 14, 22): 1540, (6, 16, 24): 2304, (9, 13, 20): 2340}
    assert summary.max_bytes == sum(4 * voxels[shape] * number for shape, number in summary.shapes.items())  # 2 x int16
    assert [case.case_id for case in summary.head] == [f"syn_0000{number}" for number in range(5)]


def test_cases_that_were_written_where_this_machine_cannot_see_them_are_missed(job_for):
    job = job_for()
    job.standing.take(write_blank(job, 0))
    shutil.rmtree(job.folder.path() / "manifest.parts")
    with pytest.raises(DataError, match="written on other machines"):
        summarise(job, 0)


@pytest.mark.parametrize("count", [0, -3])
def test_a_count_below_one_is_refused(job_for, count):
    with pytest.raises(ConfigError, match=f"at least 1, got {count}"):
        job_for(count=count)


def test_a_folder_that_is_no_bundle_is_refused(tiny_pipeline, tmp_path):
    with pytest.raises(ArtifactError, match=r"expected a bundle"):
        open_run(tiny_pipeline | {"refiner": tmp_path}, "knee", 1, 1, 0, tmp_path / "out", SynthesisConfig())


def test_a_plan_file_and_gates_are_part_of_the_identity_and_others_are_refused_with_both_digests(job_for, tmp_path):
    (tmp_path / "one.yaml").write_text("cases: [{count: 3}]")
    (tmp_path / "other.yaml").write_text("cases: [{count: 3, style: 1}]")
    one = job_for(count=None, ordered={"plan": tmp_path / "one.yaml"})
    write_blank(one, 0)
    other = job_for(count=None, out="elsewhere", ordered={"plan": tmp_path / "other.yaml"}).info.plan_digest

    assert one.plan.count == 3
    with pytest.raises(DataError, match=f"plan_digest {one.info.plan_digest} there and {other} now"):
        job_for(count=None, ordered={"plan": tmp_path / "other.yaml"})
    limits = CaseLimits(num_cases=1, labels={})
    with pytest.raises(DataError, match=r"gates \{\} there and \{'limits'"):
        job_for(count=None, ordered={"plan": tmp_path / "one.yaml", "gates": GateRules(limits=limits)})


@pytest.mark.parametrize("ordered", [{}, {"plan": "plan.csv"}])
def test_a_number_of_cases_and_a_plan_exclude_each_other_and_one_is_needed(job_for, ordered):
    with pytest.raises(ConfigError, match="either a number of cases or a plan"):
        job_for(count=3 if ordered else None, ordered=ordered)
