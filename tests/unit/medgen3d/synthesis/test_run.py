import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from medgen3d.artifacts import nifti, provenance
from medgen3d.artifacts.case_status import CaseStatus
from medgen3d.artifacts.synthetic_set import merge_parts, open_for_writing
from medgen3d.config.experiment import SynthesisConfig
from medgen3d.core.errors import ArtifactError, ConfigError, DataError
from medgen3d.core.volume import Volume, affine_from_spacing
from medgen3d.measures.limits import CaseLimits
from medgen3d.synthesis.gates import GateRules
from medgen3d.synthesis.run import open_run
from medgen3d.synthesis.run_options import RunOptions
from medgen3d.synthesis.set_writer import write_batch
from medgen3d.synthesis.summary import summarise


@pytest.fixture
def run_for(tiny_as_pipeline, tmp_path):
    def make(count=6, seed=0, out="out", version=3, masks=None, sampling=None, chosen=None, **settings):
        config = SynthesisConfig(**{"batch": 4} | settings)
        options = RunOptions(masks=masks, sampling=sampling or {}, **chosen or {})
        pipeline = replace(tiny_as_pipeline("knee"), version=version)
        return open_run(pipeline, count, seed, tmp_path / out, config, options)

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


def wanted(run):
    """Number of each batch that is to be drawn -> its cases that are missing."""
    return {spec.numbers[0] // run.info.batch: list(spec.wanted) for spec in run.ledger.next_batches(99)}


def drawn_with(run, batch):
    """The plans of all cases that are drawn in a batch."""
    spec = next(spec for spec in run.ledger.next_batches(99) if spec.numbers[0] == batch * run.info.batch)
    return [case.plan for case in run.in_flight(0, spec).cases]


def write_blank(run, batch):
    """Batch by batch what the workers do, without drawing."""
    open_for_writing(run.folder.location, run.info)
    spec = next(spec for spec in run.ledger.next_batches(99) if spec.numbers[0] == batch * run.info.batch)
    return write_batch(run.in_flight(0, spec), run.dataset, run.info, run.folder.location, max_redraws=5)


def test_a_new_folder_lacks_everything_and_stays_untouched(run_for, tmp_path):
    run = run_for()
    assert wanted(run) == {0: [0, 1, 2, 3], 1: [4, 5]}
    assert [case.number for case in drawn_with(run, 1)] == [4, 5, 6, 7]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("use_gpu", "width"), [(None, 1), (False, 1), (True, 8)])
def test_cases_advance_alone_on_cpus_and_by_eight_on_gpus_unless_a_number_is_chosen(run_for, use_gpu, width):
    assert run_for(batch=None, use_gpu=use_gpu).info.batch == width
    assert len(drawn_with(run_for(batch=None, use_gpu=use_gpu), 0)) == width
    assert run_for(batch=3, use_gpu=use_gpu).info.batch == 3


def test_cases_that_are_whole_are_kept_also_when_their_rows_are_not_merged_yet(run_for):
    write_blank(run_for(), 0)
    assert wanted(run_for()) == {1: [4, 5]}
    merge_parts(run_for().folder.location)
    assert wanted(run_for()) == {1: [4, 5]}
    assert list(run_for(count=3).ledger.missing) == []
    assert run_for(count=3).ledger.count(CaseStatus.DONE) == 3


def test_a_damaged_and_a_missing_file_are_drawn_again(run_for):
    run = run_for()
    write_blank(run, 0)
    (run.folder.path() / "images" / "syn_00001.nii.gz").write_bytes(b"half")
    (run.folder.path() / "labels" / "syn_00003.nii.gz").unlink()
    assert wanted(run_for()) == {0: [1, 3], 1: [4, 5]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 9}, "seed 0 there and 9 now"),
        ({"version": 4}, "pipeline_version 3 there and 4 now"),
        ({"threads": 2}, "threads 1 there and 2 now"),
    ],
)
def test_another_seed_pipeline_or_arithmetic_is_refused(run_for, change, words):
    write_blank(run_for(), 0)
    with pytest.raises(DataError, match=words):
        run_for(**change)


def test_a_set_that_was_begun_with_samplers_of_another_version_is_refused(run_for, monkeypatch):
    write_blank(run_for(), 0)
    monkeypatch.setattr(provenance, "DRAWING_VERSION", provenance.DRAWING_VERSION + 1)
    with pytest.raises(DataError, match="config_hash"):
        run_for()


def test_the_number_of_actors_may_change_between_runs(run_for):
    write_blank(run_for(), 0)
    assert wanted(run_for(num_actors={"mask_generator": 3})) == {1: [4, 5]}


def test_options_that_are_named_are_part_of_the_identity_and_recorded(run_for):
    plain, other = run_for(), run_for(sampling={"refiner": {"start": 0.35, "sampling_steps": 3}, "mask_generator": {}})

    assert plain.info.sampling == {}
    assert other.info.sampling == {"refiner": {"start": 0.35}}  # the bundle has 3 steps itself
    assert other.info.config_hash != plain.info.config_hash
    assert other.bundles["refiner"].config().start == 0.35
    write_blank(plain, 0)
    with pytest.raises(DataError, match=r"sampling \{\} there and \{'refiner': \{'start': 0.35\}\} now"):
        run_for(sampling={"refiner": {"start": 0.35}})


def test_without_refinement_the_refiner_neither_draws_nor_counts(run_for):
    run = run_for(refine=False)
    assert run.stages == ("mask_generator", "image_sequence_generator")
    assert not run.info.refined
    assert run.info.weights_sha256.keys() == {"mask_generator", "image_sequence_generator"}
    assert run.info.config_hash == run_for(refine=False, sampling={"refiner": {"start": 0.35}}).info.config_hash
    assert run_for(refine=False, sampling={"refiner": {"start": 0.35}}).info.sampling == {}


def test_given_masks_decide_sizes_and_how_many_cases_there_are_but_no_stream(run_for, masks):
    drawn, run = run_for(), run_for(masks=masks)

    assert run.stages == ("image_sequence_generator", "refiner")
    assert (run.plan.count, wanted(run)) == (3, {0: [0, 1, 2]})
    assert [plan.shape for plan in drawn_with(run, 0)] == [(4, 10, 20), (5, 10, 20), (6, 10, 20)]  # no fourth mask
    assert [plan.seeds for plan in drawn_with(run, 0)] == [plan.seeds for plan in drawn_with(drawn, 0)[:3]]
    assert run.info.masks_digest == run.given.digest
    assert drawn.info.masks_digest is None
    assert "mask_generator" not in run.info.weights_sha256
    assert len(drawn_with(run_for(masks=masks, count=2), 0)) == 3  # the neighbours do not depend on the count


def test_a_summary_counts_sizes_and_bytes(run_for):
    summary = summarise(run_for(count=50), 0)

    assert sum(summary.shapes.values()) == 50
    voxels = {(5, 14, 22): 1540, (6, 16, 24): 2304, (9, 13, 20): 2340}
    assert summary.max_bytes == sum(4 * voxels[shape] * number for shape, number in summary.shapes.items())  # 2 x int16
    assert [case.case_id for case in summary.head] == [f"syn_0000{number}" for number in range(5)]


def test_cases_that_were_written_where_this_machine_cannot_see_them_are_missed(run_for):
    run = run_for()
    run.ledger.record(write_blank(run, 0))
    shutil.rmtree(run.folder.path() / "manifest.parts")
    with pytest.raises(DataError, match="written on other machines"):
        summarise(run, 0)


@pytest.mark.parametrize("count", [0, -3])
def test_a_count_below_one_is_refused(run_for, count):
    with pytest.raises(ConfigError, match=f"at least 1, got {count}"):
        run_for(count=count)


def test_a_folder_that_is_no_bundle_is_refused(tiny_as_pipeline, tmp_path):
    known = tiny_as_pipeline("knee")
    pipeline = replace(known, bundles=known.bundles | {"refiner": tmp_path})
    with pytest.raises(ArtifactError, match=r"expected a bundle"):
        open_run(pipeline, 1, 0, tmp_path / "out", SynthesisConfig())


def test_a_plan_file_and_gates_are_part_of_the_identity_and_others_are_refused_with_both_digests(run_for, tmp_path):
    (tmp_path / "one.yaml").write_text("cases: [{count: 3}]")
    (tmp_path / "other.yaml").write_text("cases: [{count: 3, style: 1}]")
    one = run_for(count=None, chosen={"plan": tmp_path / "one.yaml"})
    write_blank(one, 0)
    other = run_for(count=None, out="elsewhere", chosen={"plan": tmp_path / "other.yaml"}).info.plan_digest

    assert one.plan.count == 3
    with pytest.raises(DataError, match=f"plan_digest {one.info.plan_digest} there and {other} now"):
        run_for(count=None, chosen={"plan": tmp_path / "other.yaml"})
    limits = CaseLimits(num_cases=1, labels={})
    with pytest.raises(DataError, match=r"gates \{\} there and \{'limits'"):
        run_for(count=None, chosen={"plan": tmp_path / "one.yaml", "gates": GateRules(limits=limits)})


@pytest.mark.parametrize("chosen", [{}, {"plan": "plan.csv"}])
def test_a_number_of_cases_and_a_plan_exclude_each_other_and_one_is_needed(run_for, chosen):
    with pytest.raises(ConfigError, match="either a number of cases or a plan"):
        run_for(count=3 if chosen else None, chosen=chosen)
