"""The bundle: a trained stage as a folder with everything that is needed to sample from it, and no pickle.

`config.json` (`BundleInfo`), `weights.safetensors` (EMA weights of the sampled networks, each tensor named
`network/parameter`), `provenance.json` and `preview.png`. See docs/artifacts.md.
"""

import dataclasses
import json
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, field_validator, model_validator

from medgen3d.artifacts.bundle_weights import REMEDY, WEIGHTS, load_weights, save_weights
from medgen3d.artifacts.intensity import Intensity
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.provenance import Provenance
from medgen3d.artifacts.versioned_json import read_versioned, write_versioned
from medgen3d.core.errors import ArtifactError
from medgen3d.core.labels import LabelTable
from medgen3d.core.volume import Affine, Volume, affine_from_spacing

if TYPE_CHECKING:  # torch stays out of what the command line imports
    from torch import Tensor

    from medgen3d_stages.catalogue import StageConfig
    from medgen3d_stages.chain import TrainedStage

CONFIG, PROVENANCE, PREVIEW = "config.json", "provenance.json", "preview.png"
FILES = (CONFIG, WEIGHTS, PROVENANCE)
"""What every bundle holds; a preview may show a real case, so bundles that leave the house are without."""
Config = TypeVar("Config")


class BundleDataset(BaseModel):
    """What synthesis must know of the training data.

    labels: Original label id -> name, background included.
    spacing_mm: Voxel size along (D, H, W).
    plane: (H, W), to which every slice is padded.
    axis_codes, image_dtype, inverse: How synthetic files are written; see `DatasetInfo`.
    shapes: [D, height, width, number of cases] of the training split.
    digest: `PreparedSet.digest`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    modality: Literal["CT", "MR"]
    phantom: bool
    labels: dict[int, str]
    spacing_mm: tuple[float, float, float]
    plane: tuple[int, int]
    axis_codes: str
    image_dtype: str
    inverse: Intensity
    shapes: list[tuple[int, int, int, int]]
    digest: str

    @classmethod
    def of(cls, prepared: PreparedSet) -> Self:
        """What a bundle that is trained on `prepared` says of it."""
        info = prepared.info
        return cls(
            name=info.name,
            modality=info.modality,
            phantom=info.phantom,
            labels=info.label_table.by_id,
            spacing_mm=info.spacing_mm,
            plane=info.plane,
            axis_codes=info.axis_codes,
            image_dtype=info.image_dtype,
            inverse=info.inverse,
            shapes=[(*shape, count) for shape, count in sorted(info.shapes("train").items())],
            digest=prepared.digest,
        )

    @property
    def label_table(self) -> LabelTable:
        return LabelTable.from_mapping(self.labels)

    def as_volumes(
        self, image: NDArray[np.float32], mask: NDArray[np.integer], affine: Affine | None = None
    ) -> tuple[Volume, Volume]:
        """A drawn pair [D, h, w] -> its image in scanner units and its mask in original label ids, on one grid.

        Args:
            image: In [-1, 1].
            mask: Contiguous ids.
            affine: Where the voxels lie; None: the training spacing, with origin 0.
        """
        affine = affine_from_spacing(self.spacing_mm) if affine is None else affine
        voxels = self.inverse.from_unit(image)
        return Volume(voxels=voxels, affine=affine), Volume(voxels=self.label_table.to_original(mask), affine=affine)


class BundleInfo(BaseModel):
    """`config.json`.

    stage: Name of the stage's package.
    stage_config: The fields of the stage's config dataclass.
    spec: The fields of `DataSpec`, which must agree with `dataset`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = 1
    stage: str
    stage_config: dict[str, object]
    spec: dict[str, object]
    dataset: BundleDataset

    @field_validator("stage_config", "spec")
    @classmethod
    def _as_json(cls, values: dict[str, object]) -> dict[str, object]:
        """Tuples become lists at once, so that a bundle in memory equals the same bundle read from disk."""
        return json.loads(json.dumps(values))

    @model_validator(mode="after")
    def _spec_fits_dataset(self) -> Self:
        implied = {
            "num_labels": len(self.dataset.labels),
            "plane": list(self.dataset.plane),
            "spacing_mm": list(self.dataset.spacing_mm),
        }
        for field, expected in implied.items():
            if self.spec.get(field) != expected:
                raise ValueError(f"spec.{field} is {self.spec.get(field)}, but the dataset's is {expected}")
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """A bundle on disk whose JSON files are read and whose weights are not yet."""

    root: Path
    info: BundleInfo
    provenance: Provenance

    def config(self) -> "StageConfig":
        """The options of the stage, checked.

        Raises:
            ArtifactError: The stage or a field of its config is not what this version of medgen3d knows.
        """
        from medgen3d_stages.catalogue import STAGE_NAMES, config_type

        path = self.root / CONFIG
        if self.info.stage not in STAGE_NAMES:
            raise ArtifactError(str(path), f"stage {self.info.stage!r}", f"one of {STAGE_NAMES}", REMEDY)
        return _dataclass(config_type(self.info.stage), self.info.stage_config, path, "stage_config")

    def trained_stage(self, device: str = "cpu") -> "TrainedStage":
        """Build the stage's sampled networks on `device` and fill them with the bundle's weights.

        Raises:
            ArtifactError: The stage, a field of its config, or a tensor's name, shape or dtype is not what this
                version of medgen3d builds; or the weights file is damaged.
        """
        import torch

        from medgen3d_stages.catalogue import make_stage
        from medgen3d_stages.chain import TrainedStage
        from medgen3d_stages.contract import DataSpec

        config, spec = self.config(), _dataclass(DataSpec, self.info.spec, self.root / CONFIG, "spec")
        stage = make_stage(self.info.stage, config, spec)
        with torch.random.fork_rng(devices=[]):  # fresh weights are overwritten: they must not move the caller's stream
            built = stage.build()
        networks = {name: built[name] for name in stage.sampled}
        load_weights(self.root / WEIGHTS, networks)
        for network in networks.values():
            network.requires_grad_(False).eval().to(device)
        return TrainedStage(stage, networks)


def write_bundle(
    root: Path, info: BundleInfo, weights: "dict[str, Tensor]", provenance: Provenance, preview_png: bytes | None
) -> None:
    """Write a bundle; `root` is whole or not there, and a bundle that is already there is replaced.

    Args:
        root: The bundle's folder.
        info: Which stage this is, how it is built and on what data.
        weights: The `named_weights` of the stage's sampled networks.
        provenance: Where the bundle comes from.
        preview_png: A picture of samples, as a PNG file's bytes; None: the bundle is to hold none.

    Raises:
        DataError: A weight is NaN or infinite: the training diverged.
        ArtifactError: `root` exists and is no bundle.
    """
    root = Path(root)
    if root.exists() and not (root / CONFIG).exists():
        raise ArtifactError(str(root), "a folder that is no bundle", "none or a bundle", "Choose another folder.")
    unfinished = root.with_name(f".{root.name}.{uuid.uuid4().hex}")
    unfinished.mkdir(parents=True)
    try:
        save_weights(unfinished / WEIGHTS, weights)
        write_versioned(unfinished / CONFIG, info)
        write_versioned(unfinished / PROVENANCE, provenance)
        if preview_png is not None:
            (unfinished / PREVIEW).write_bytes(preview_png)
        if root.exists():
            shutil.rmtree(root)
        unfinished.rename(root)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def read_bundle(root: Path) -> Bundle:
    """Open a bundle: its JSON files are read and checked, its weights only when `trained_stage` needs them.

    Raises:
        ArtifactError: A file is missing or damaged, or was written by another version.
    """
    root = Path(root)
    for name in FILES:
        if not (root / name).is_file():
            raise ArtifactError(str(root), f"no {name}", f"a bundle, a folder with {', '.join(FILES)}", REMEDY)
    info = read_versioned(root / CONFIG, BundleInfo, REMEDY)
    return Bundle(root=root, info=info, provenance=read_versioned(root / PROVENANCE, Provenance, REMEDY))


def _dataclass(kind: type[Config], values: dict[str, object], path: Path, where: str) -> Config:
    """JSON values -> a frozen dataclass of the stages, whose own checks run; lists become tuples."""
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in sorted(values.keys() - known):
        raise ArtifactError(str(path), f"an unknown field {where}.{name}", f"fields of {kind.__name__}", REMEDY)
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join([where, *(str(part) for part in first["loc"])])
        raise ArtifactError(str(path), f"{field}: {first['msg']}", f"a valid {kind.__name__}", REMEDY) from error
