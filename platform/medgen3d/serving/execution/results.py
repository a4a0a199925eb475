"""Results: finished pairs as a synthetic set (`artifacts.synthetic_set`), in a folder and as one zip file.

Same request and pipeline, same bytes: neither names a job, and no file carries a time.
"""

import os
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from medgen3d.artifacts.manifest import SyntheticSetInfo
from medgen3d.artifacts.synthetic_set import merge_parts, open_for_writing, write_case, write_part
from medgen3d.artifacts.versioned_json import write_versioned
from medgen3d.core.resample import resample
from medgen3d.core.volume import Affine, Volume
from medgen3d.serving.execution.engine import CaseSpec
from medgen3d.serving.inference.pipeline_catalog import ServedPipeline
from medgen3d.serving.schemas import JobRequest
from medgen3d_stages.arrays import Image, Mask

REQUEST = "request.json"
_NO_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can say


class AnsweredRequest(BaseModel):
    """`request.json`: what was asked for, and which version of the pipeline answered."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = 1
    pipeline: str
    pipeline_version: int
    request: JobRequest


def write_result(
    folder: Path,
    archive: Path,
    request: JobRequest,
    loaded: ServedPipeline,
    cases: Sequence[CaseSpec],
    pairs: Sequence[tuple[Image, Mask]],
    mask_digest: str | None = None,
    affine: Affine | None = None,
) -> int:
    """Write the pairs of a job; folder and zip file appear whole or not at all.

    Args:
        folder: For the files; replaced if it exists.
        archive: The zip file.
        request: What was asked for.
        loaded: The version that drew.
        cases: As ordered.
        pairs: (image in [-1, 1], mask of contiguous ids) of each case.
        mask_digest: Of the mask that came with the request.
        affine: Where that mask's voxels lie; None: origin 0.

    Returns:
        Size of the zip file [bytes].
    """
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    info = _set_info(request, loaded, mask_digest)
    open_for_writing(unfinished, info)
    rows = []
    for number, (case, (image, mask)) in enumerate(zip(cases, pairs, strict=True)):
        drawn = loaded.dataset.as_volumes(image, mask, affine)
        image_volume, mask_volume = _at_spacing(request, *drawn)
        rows.append(
            write_case(unfinished, info, case_id=case.case_id, number=number, image=image_volume, mask=mask_volume)
        )
    write_part(unfinished, info, 0, rows)
    merge_parts(unfinished)
    shutil.rmtree(unfinished / "manifest.parts")
    answered = AnsweredRequest(pipeline=loaded.reference, pipeline_version=loaded.version, request=request)
    write_versioned(unfinished / REQUEST, answered)
    _zip(unfinished, archive)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.replace(folder)
    return archive.stat().st_size


def files_of(folder: Path) -> dict[str, Path]:
    """The files of a result by the name that a client gives, such as `images/syn_00000.nii.gz`."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def _set_info(request: JobRequest, loaded: ServedPipeline, mask_digest: str | None) -> SyntheticSetInfo:
    return SyntheticSetInfo.of(
        loaded.dataset,
        spacing_mm=request.spacing_mm or loaded.dataset.spacing_mm,
        pipeline_name=loaded.name,
        pipeline_version=loaded.version,
        seed=request.seed,
        config_hash=loaded.config_hash,
        weights_sha256=dict(loaded.weights_sha256),
        batch=loaded.batch,
        threads=loaded.threads,
        device=loaded.device,
        masks_digest=mask_digest,
    )


def _at_spacing(request: JobRequest, image: Volume, mask: Volume) -> tuple[Volume, Volume]:
    if request.spacing_mm is None:
        return image, mask
    return resample(image, request.spacing_mm, "linear"), resample(mask, request.spacing_mm, "nearest")


def _zip(folder: Path, archive: Path) -> None:
    """NIfTI files are compressed already, so they are only stored; the file is on the disk before it has its name."""
    unfinished = archive.with_name(archive.name + ".unfinished")
    with unfinished.open("wb") as raw:
        with zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED) as zipped:
            for name, path in files_of(folder).items():
                entry = zipfile.ZipInfo(name, _NO_TIME)
                entry.external_attr = 0o644 << 16
                with path.open("rb") as source, zipped.open(entry, "w", force_zip64=True) as target:
                    shutil.copyfileobj(source, target, 2**20)
                    os.fsync(source.fileno())
        raw.flush()
        os.fsync(raw.fileno())
    unfinished.replace(archive)
