"""A pipeline: three trained stages that fit together, pinned by the registry or carried by a folder.

The folder needs no registry: `pipeline.json` (`PortablePipeline`) and a bundle per stage, every file with its hash. See
docs/artifacts.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import BaseModel, ConfigDict

from medgen3d.artifacts.bundle import FILES, read_bundle, write_bundle
from medgen3d.artifacts.bundle_weights import WEIGHTS, read_weights
from medgen3d.artifacts.versioned_json import read_versioned, write_versioned
from medgen3d.config.experiment import CHAIN
from medgen3d.core.errors import ArtifactError, DataError
from medgen3d.core.hashing import sha256_of
from medgen3d.measures.limits import CaseLimits

if TYPE_CHECKING:  # torch stays out of what the command line imports
    from torch import Tensor

FILE, CARD = "pipeline.json", "card.md"
_REMEDY = "Export the pipeline again, or install medgen3d again if it is built in."


class PinnedBundle(BaseModel):
    """One stage of a pipeline.

    model, version: The registered bundle.
    dataset_digest: Of the prepared set that it was trained on; stages may have seen different ones.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    version: int
    weights_sha256: str
    dataset_digest: str


class PipelineInfo(BaseModel):
    """`pipeline.json`.

    labels: Original label id -> name, background included.
    spacing_mm: Voxel size along (D, H, W).
    plane: (H, W), to which every slice is padded.
    licence: Of the training data; None: it is not known.
    limits: What drawn cases are held to; None: the training data were not at hand when the pipeline was made.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = 1
    dataset: str
    modality: Literal["CT", "MR"]
    phantom: bool
    labels: dict[int, str]
    spacing_mm: tuple[float, float, float]
    plane: tuple[int, int]
    stages: dict[str, PinnedBundle]
    licence: str | None = None
    limits: CaseLimits | None = None


class PortablePipeline(PipelineInfo):
    """`pipeline.json` of a pipeline that is a folder.

    version: Of the registered pipeline that was exported.
    files: STAGE/FILE -> SHA-256, of every file of every bundle in the folder. They and `weights_sha256` are of the
        files as they lie there, which are not the registered ones where weights were halved.
    """

    version: int
    files: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pipeline:
    """A pipeline that can be run.

    notice: What a user should know of the choice of this version; empty if there is nothing.
    bundles: Stage -> folder of its bundle on this machine.
    data: Where the prepared set was that it was trained on, if that is known.
    licence: Of the training data, if that is known.
    """

    name: str
    version: int
    notice: str
    info: PipelineInfo
    bundles: dict[str, Path]
    data: str | None = None
    licence: str | None = None

    @classmethod
    def of_bundles(cls, name: str, version: int, bundles: Mapping[str, Path]) -> Self:
        """A pipeline that no registry knows, of bundles that fit together.

        Raises:
            ArtifactError: A folder is no bundle.
        """
        opened = {stage: read_bundle(root) for stage, root in bundles.items()}
        datasets = {stage: bundle.info.dataset for stage, bundle in opened.items()}
        pinned = {
            stage: PinnedBundle(
                model=f"{dataset.name}.{stage}",
                version=version,
                weights_sha256=sha256_of(opened[stage].root / WEIGHTS),
                dataset_digest=dataset.digest,
            )
            for stage, dataset in datasets.items()
        }
        dataset = datasets[CHAIN[0]]
        common = dataset.model_dump(include=set(PipelineInfo.model_fields))
        info = PipelineInfo(dataset=dataset.name, stages=pinned, **common)
        return cls(name=name, version=version, notice="", info=info, bundles=dict(bundles))


def write_portable(root: Path, pipeline: Pipeline, *, half: bool) -> PortablePipeline:
    """Write a pipeline as a folder that needs no registry, in place of an older one; its card is left as it is.

    Previews stay behind: that of a stage may show a real case.

    Args:
        root: The folder.
        pipeline: With its bundles on this machine.
        half: Round weights to float16, which halves their size; each then errs by at most 1/2048 of its value (by
            2^-25 if it is smaller than 2^-14).

    Raises:
        DataError: The folder holds something else or cannot be written, or a weight is too large for float16.
    """
    root = Path(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        strangers = sorted({path.name for path in root.iterdir()} - {FILE, CARD, *CHAIN})
        if strangers:
            raise DataError(f"{root} holds {strangers[0]}, which is no part of a pipeline. Choose another folder.")
        for stage in CHAIN:
            _copy_bundle(pipeline.bundles[stage], root / stage, half=half)
        written = _described(root, pipeline)
        write_versioned(root / FILE, written)
    except OSError as error:
        raise DataError(f"{root} cannot be written ({error.strerror}). Choose a folder that can.") from error
    return written


def read_portable(root: Path, name: str) -> Pipeline:
    """Open a folder that `write_portable` wrote, every file being the one that was written.

    Raises:
        ArtifactError: A file is missing or was changed, or `pipeline.json` is damaged or of another version.
    """
    info = read_portable_info(root)
    for file, expected in info.files.items():
        path = root / file
        found = sha256_of(path) if path.is_file() else None
        if found != expected:
            shown = f"SHA-256 {found[:12]}…" if found else "no such file"
            raise ArtifactError(str(path), shown, f"SHA-256 {expected[:12]}… of {FILE}", _REMEDY)
    bundles = {stage: root / stage for stage in info.stages}
    return Pipeline(name=name, version=info.version, notice="", info=info, bundles=bundles)


def read_portable_info(root: Path) -> PortablePipeline:
    """The folder's `pipeline.json` alone; nothing is compared.

    Raises:
        ArtifactError: It is missing, damaged or of another version.
    """
    return read_versioned(Path(root) / FILE, PortablePipeline, _REMEDY)


def _copy_bundle(source: Path, target: Path, *, half: bool) -> None:
    bundle = read_bundle(source)
    weights = read_weights(source)
    if half:
        weights = {name: _halved(f"{bundle.info.stage}: {name}", tensor) for name, tensor in weights.items()}
    write_bundle(target, bundle.info, weights, bundle.provenance, preview_png=None)


def _halved(name: str, tensor: "Tensor") -> "Tensor":
    import torch

    if tensor.dtype != torch.float32:
        return tensor
    largest = torch.finfo(torch.float16).max
    if (tensor.abs() > largest).any():
        raise DataError(
            f"{name} holds the weight {tensor.abs().max():g}, but half precision ends at {largest:g}. "
            "Export without --half."
        )
    return tensor.half()


def _described(root: Path, pipeline: Pipeline) -> PortablePipeline:
    files = {f"{stage}/{name}": sha256_of(root / stage / name) for stage in CHAIN for name in FILES}
    stages = {
        stage: pinned.model_copy(update={"weights_sha256": files[f"{stage}/{WEIGHTS}"]})
        for stage, pinned in pipeline.info.stages.items()
    }
    common = pipeline.info.model_dump(include=set(PipelineInfo.model_fields) - {"stages"})
    return PortablePipeline(**common, stages=stages, version=pipeline.version, files=files)
