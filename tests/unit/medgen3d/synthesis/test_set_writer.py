from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from medgen3d.artifacts.synthetic_set import SyntheticSet, open_for_writing
from medgen3d.config.experiment import SynthesisConfig
from medgen3d.synthesis.batch_codec import InFlightBatch, begin
from medgen3d.synthesis.run import open_run
from medgen3d.synthesis.set_writer import write_batch


@pytest.fixture
def run(tiny_as_pipeline, tmp_path):
    return open_run(tiny_as_pipeline("knee"), 4, 0, tmp_path / "out", SynthesisConfig(batch=4))


def test_sound_cases_are_written_and_failed_ones_only_listed(run):
    open_for_writing(run.folder.location, run.info)
    failed, sound = begin([run.plan.case(number) for number in (1, 2)])
    cases = [replace(failed, failure="case syn_00001: no luck"), replace(sound, note="drawn alone")]
    dataset = run.bundles["refiner"].info.dataset
    write_batch(InFlightBatch(key=0, wanted=[1, 2], cases=cases), dataset, run.info, run.folder.location, max_redraws=2)
    found = SyntheticSet(run.folder.location)

    assert found.rows.keys() == {"syn_00001", "syn_00002"}
    assert found.case_ids == ["syn_00002"]
    assert found.rows["syn_00001"].message == "case syn_00001: no luck"
    assert found.rows["syn_00002"].message == "drawn alone"
    assert [path.name for path in (run.folder.path() / "images").iterdir()] == ["syn_00002.nii.gz"]


def test_intensities_beyond_the_voxel_type_are_clipped_not_wrapped(run):
    open_for_writing(run.folder.location, run.info)
    case = begin([run.plan.case(0)])[0]
    case.image[0, 0, :2] = (-1000.0, 1000.0)  # int16 ends at -32768 and 32767; a unit is 200
    dataset = run.bundles["refiner"].info.dataset
    write_batch(InFlightBatch(key=0, wanted=[0], cases=[case]), dataset, run.info, run.folder.location, max_redraws=2)
    values = np.asarray(nib.load(run.folder.path() / "images" / "syn_00000.nii.gz").dataobj)

    assert (values.min(), values.max()) == (-32768, 32767)
