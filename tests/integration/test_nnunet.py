"""nnU-Net's own checks accept a synthetic set as it is.

nnunetv2 wants torchvision and other versions of what medgen3d pins, so it lives in an environment of its own:
MEDGEN3D_NNUNET_PYTHON names its Python. docs/bulk.md says how to make one.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from medgen3d.artifacts.manifest import SyntheticSetInfo
from medgen3d.artifacts.synthetic_set import merge_parts, open_for_writing, write_case, write_part
from medgen3d.core.volume import Volume, affine_from_spacing

CHECKS = """
import sys
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
verify_dataset_integrity(sys.argv[1], num_processes=1)
DatasetFingerprintExtractor(901, num_processes=1).run(overwrite_existing=True)
"""


@pytest.mark.soak
@pytest.mark.parametrize("ids", [(1, 2), (5, 117)])
def test_nnunets_verification_and_fingerprint_accept_the_folder(tmp_path: Path, ids: tuple[int, int]) -> None:
    python = os.environ.get("MEDGEN3D_NNUNET_PYTHON")
    if not python:
        pytest.skip("MEDGEN3D_NNUNET_PYTHON is unset: it names the Python of an environment with nnunetv2")
    root = tmp_path / "raw" / "Dataset901_Knee"
    info = SyntheticSetInfo(
        dataset_name="knee",
        dataset_digest="d" * 64,
        modality="MR",
        phantom=True,
        labels={0: "background", ids[0]: "bone", ids[1]: "cartilage"},
        spacing_mm=(3.0, 0.5, 0.75),
        axis_codes="LPS",
        image_dtype="int16",
        pipeline_name="knee",
        pipeline_version=1,
        seed=0,
        config_hash="c" * 64,
        weights_sha256={"refiner": "f" * 64},
        batch=1,
        threads=1,
        device="cpu",
        label_ids="consecutive",
    )
    open_for_writing(root, info)
    rng, affine, rows = np.random.default_rng(0), affine_from_spacing(info.spacing_mm), []
    for number in range(3):
        mask = np.zeros((12, 20, 24), np.uint8)
        mask[3:9, 4:14, 4:16], mask[3:9, 14:16, 4:16] = ids
        image = mask * 100.0 + rng.normal(0, 5, mask.shape)
        pair = {"image": Volume(voxels=image, affine=affine), "mask": Volume(voxels=mask, affine=affine)}
        rows.append(write_case(root, info, case_id=f"syn_{number:05d}", number=number, **pair))
    write_part(root, info, 0, rows)
    merge_parts(root)

    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    folders = {f"nnUNet_{name}": str(tmp_path / name) for name in ("raw", "preprocessed", "results")}
    done = subprocess.run(
        [python, "-c", CHECKS, str(root)], env=kept | folders, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    fingerprint = json.loads((tmp_path / "preprocessed" / root.name / "dataset_fingerprint.json").read_text())
    assert fingerprint["spacings"] == [pytest.approx([3.0, 0.5, 0.75])] * 3
    assert len(fingerprint["shapes_after_crop"]) == 3
