import json

import numpy as np
import pytest

from medgen3d.artifacts import nifti
from medgen3d.artifacts.synthetic_set import merge_parts, open_for_writing
from medgen3d.config.experiment import SynthesisConfig
from medgen3d.core.errors import ArtifactError, ConfigError, DataError
from medgen3d.core.volume import Volume, affine_from_spacing
from medgen3d.synthesis.job import make_job, summarise
from medgen3d.synthesis.output import write_batch
from medgen3d.synthesis.work import BatchInWork, begin


@pytest.fixture
def job_for(tiny_pipeline, tmp_path):
    def make(count=6, seed=0, out="out", version=1, options=None, masks=None, **settings):
        config = SynthesisConfig(batch=4, **settings)
        return make_job(
            tiny_pipeline, "knee", version, count, seed, tmp_path / out, config, options=options or {}, masks=masks
        )

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


def write_blank(job, batch):
    """Batch by batch what the workers do, without drawing."""
    open_for_writing(job.out, job.info)
    work = BatchInWork(batch=batch, wanted=job.wanted[batch], cases=begin(job.plans_of(batch)))
    write_batch(work, job.bundles["refiner"].info.dataset, job.info, job.out)


def test_a_new_folder_lacks_everything_and_stays_untouched(job_for, tmp_path):
    job = job_for()
    assert job.wanted == {0: [0, 1, 2, 3], 1: [4, 5]}
    assert [case.number for case in job.plans_of(1)] == [4, 5, 6, 7]
    assert list(tmp_path.iterdir()) == []


def test_cases_that_are_whole_are_kept_also_when_their_rows_are_not_merged_yet(job_for):
    write_blank(job_for(), 0)
    assert job_for().wanted == {1: [4, 5]}
    merge_parts(job_for().out)
    assert job_for().wanted == {1: [4, 5]}
    assert job_for(count=3).num_missing == 0
    assert summarise(job_for(count=3), is_drawn=False).num_kept == 3


def test_a_damaged_and_a_missing_file_are_drawn_again(job_for):
    job = job_for()
    write_blank(job, 0)
    (job.out / "images" / "syn_00001.nii.gz").write_bytes(b"half")
    (job.out / "labels" / "syn_00003.nii.gz").unlink()
    assert job_for().wanted == {0: [1, 3], 1: [4, 5]}


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
    assert job_for(num_actors={"mask_generator": 3}).wanted == {1: [4, 5]}


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
    assert (job.count, job.wanted) == (3, {0: [0, 1, 2]})
    assert [plan.shape for plan in job.plans_of(0)] == [(4, 10, 20), (5, 10, 20), (6, 10, 20)]  # no fourth mask
    assert [plan.seeds for plan in job.plans_of(0)] == [plan.seeds for plan in drawn.plans_of(0)[:3]]
    assert job.info.masks_digest == job.given.digest
    assert drawn.info.masks_digest is None
    assert "mask_generator" not in job.info.weights_sha256
    assert len(job_for(masks=masks, count=2).plans_of(0)) == 3  # the neighbours do not depend on the count


def test_a_summary_counts_sizes_and_bytes(job_for):
    summary = summarise(job_for(count=50), is_drawn=False)

    assert sum(summary.shapes.values()) == 50
    voxels = {(5, 14, 22): 1540, (6, 16, 24): 2304, (9, 13, 20): 2340}
    assert summary.max_bytes == sum(4 * voxels[shape] * number for shape, number in summary.shapes.items())  # 2 x int16
    assert (summary.num_kept, summary.num_drawn) == (0, 50)


def test_cases_that_were_written_where_this_machine_cannot_see_them_are_missed(job_for):
    job = job_for()
    write_blank(job, 0)
    with pytest.raises(DataError, match="written on other machines"):
        summarise(job, is_drawn=True)


@pytest.mark.parametrize("count", [0, -3])
def test_a_count_below_one_is_refused(job_for, count):
    with pytest.raises(ConfigError, match=f"at least 1, got {count}"):
        job_for(count=count)


def test_a_folder_that_is_no_bundle_is_refused(tiny_pipeline, tmp_path):
    with pytest.raises(ArtifactError, match=r"expected a bundle"):
        make_job(tiny_pipeline | {"refiner": tmp_path}, "knee", 1, 1, 0, tmp_path / "out", SynthesisConfig())
