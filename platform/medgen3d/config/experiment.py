"""The experiment's configuration: one tree that names every choice, refuses unknown keys and checks each value.

The defaults are those of the preset `workstation`. The networks' own options stand next to the networks, in
`medgen3d_stages/<stage>/config.py`; here they are embedded, and pydantic checks them like everything else.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from medgen3d.config.engine import EngineConfig
from medgen3d.config.section import ConfigSection, NonNegativeInt, Share
from medgen3d.config.training import TrainingConfig
from medgen3d_stages.image_sequence_generator.config import ImageSequenceGeneratorConfig
from medgen3d_stages.mask_generator.config import MaskGeneratorConfig
from medgen3d_stages.refiner.config import RefinerConfig
from medgen3d_stages.segmenter.config import SegmenterConfig

CHAIN = ("mask_generator", "image_sequence_generator", "refiner")
"""The stages that make a pair, in their order."""


class IngestConfig(ConfigSection):
    """How raw volumes become the prepared set."""

    modality: Literal["CT", "MR"] | None = None
    """None: as the data set's `dataset.json` says."""
    spacing_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    """Voxel size along (D, H, W) [mm]. None: the median spacing of the cases."""
    plane: tuple[PositiveInt, PositiveInt] | None = None
    """(H, W) of every slice [pixels], multiples of 8; larger cases are cropped about the centre and listed.
    None: the smallest multiples of 8 that hold the largest case."""
    hu_window: tuple[float, float] = (-1000.0, 1000.0)
    """CT: what becomes -1 and +1 [HU]; values outside are clipped."""
    percentiles: tuple[float, float] = (0.5, 99.5)
    """MR: the percentiles of each volume that become -1 and +1."""
    min_slices: PositiveInt = 4
    """Cases with fewer slices are refused [slices]."""
    split_shares: tuple[Share, Share, Share] = (0.7, 0.1, 0.2)
    """Shares of the patients in (train, validation, test)."""
    labels: dict[NonNegativeInt, str] | None = None
    """Original label id -> name. None: as `dataset.json` says, else the ids found."""

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if self.plane and any(side % 8 for side in self.plane):
            raise ValueError(f"plane must be two multiples of 8 pixels, got {self.plane}")
        if not self.hu_window[0] < self.hu_window[1]:
            raise ValueError(f"hu_window must be (low, high) with low below high, got {self.hu_window}")
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError(f"percentiles must be (low, high) with 0 <= low < high <= 100, got {self.percentiles}")
        if abs(sum(self.split_shares) - 1) > 1e-6 or not self.split_shares[0]:
            raise ValueError(
                f"split_shares must be three shares that sum to 1, the first above 0, got {self.split_shares}"
            )
        return self


class ClusterConfig(ConfigSection):
    """What a training run takes of the Ray cluster."""

    num_workers: PositiveInt = 1
    """Data-parallel training processes."""
    use_gpu: bool | None = None
    """One GPU per worker. None: if the cluster has that many when training begins."""
    cpus_per_worker: PositiveFloat = 1.0
    """Logical CPUs that Ray sets aside for each worker."""
    threads: PositiveInt = 2
    """Torch threads per worker; Ray would otherwise derive them from the logical CPUs."""
    max_failures: NonNegativeInt = 3
    """Lost workers after which training gives up; until then it continues from its last checkpoint."""
    wait_for_resources: bool = False
    """Wait without an end for machines that an autoscaler may add, instead of refusing what there is no room for."""


class StageActors(ConfigSection):
    """Processes per stage."""

    mask_generator: PositiveInt = 1
    image_sequence_generator: PositiveInt = 1
    refiner: PositiveInt = 1


class SynthesisConfig(ConfigSection):
    """How pairs are synthesised in bulk."""

    batch: PositiveInt | None = None
    """Cases drawn together. Part of the result's identity: the same batch gives the same bytes. None: 1 on CPUs,
    where wider batches gain little, and 8 on GPUs."""
    num_actors: StageActors = StageActors()
    use_gpu: bool | None = None
    """None: if the cluster has GPUs enough for all actors when synthesis begins."""
    gpus_per_actor: PositiveFloat = 0.33
    """Share of a GPU that Ray sets aside for each actor; three stages share one by default."""
    cpus_per_actor: PositiveFloat = 0.5
    """Logical CPUs that Ray sets aside for each actor; three stages share two cores by default."""
    threads: PositiveInt = 1
    """Torch threads per actor. Part of the result's identity, like `batch`."""
    refine: bool = True
    """False: images as the image sequence generator leaves them, to see what the refiner is worth."""
    gates: bool = True
    """False: every case is written, whatever it is like, as suits networks that are hardly trained."""
    max_redraws: Annotated[int, Field(ge=0, le=99)] = 5
    """How often a case that a gate rejects is drawn again before it is given up."""
    num_gate_actors: PositiveInt = 1
    """Processes that check drawn cases; they use CPUs alone."""
    label_ids: Literal["original", "consecutive"] = "original"
    """Ids in the files: those of the training data, or 0, 1, 2, ... in their order, as nnU-Net wants it."""
    signing_key: Path | None = None
    """PEM file with the operator's private Ed25519 key, which signs finished manifests. None: they are not signed."""
    min_alignment: Share = 0.5
    """Alignment gate: smallest mean Dice of a case's mask and what the registered segmenter finds in its image."""


class UsefulnessConfig(ConfigSection):
    """How the segmenters of a usefulness study are trained, besides `segmenter` and `training.segmenter`."""

    real_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Probability with which an example is a real case where real cases and synthetic pairs are used together."""
    threads: PositiveInt = 1
    """Torch threads, and logical CPUs that Ray sets aside, per trial."""
    use_gpu: bool | None = None
    """None: if the cluster has a GPU when the study begins."""
    gpus_per_trial: PositiveFloat = 0.25
    """Share of a GPU that Ray sets aside for each trial."""


class StorageConfig(ConfigSection):
    """Where runs, checkpoints and the registry live; every machine of a cluster must see the same folder."""

    root: Path = Path("medgen3d-runs")
    tracking_uri: str | None = None
    """MLflow server, such as http://mlflow:5000. None: a SQLite file in `root`, good for one machine."""

    @field_validator("root", mode="before")
    @classmethod
    def _is_a_folder(cls, value: object) -> object:
        if "://" in str(value):
            raise ValueError(
                f"runs and checkpoints go to a folder that every machine sees, got {value}; object stores are for "
                "synthetic sets alone (synthesize --out)"
            )
        return value

    @property
    def mlflow_uri(self) -> str:
        """Where MLflow tracks; absolute, since Ray workers run in folders of their own."""
        return self.tracking_uri or f"sqlite:///{self.root.absolute()}/mlflow.db"

    @property
    def artifacts_dir(self) -> Path:
        """Folder of MLflow's artifacts when tracking goes to SQLite."""
        return self.root.absolute() / "artifacts"

    @property
    def training_dir(self) -> Path:
        """Folder of Ray Train's runs and checkpoints."""
        return self.root.absolute() / "training"


class ServingConfig(ConfigSection):
    """How pairs are served over HTTP, and what of it one client may have."""

    pipelines: tuple[str, ...] = ("builtin/hippocampus",)
    """References that are offered. `NAME` offers every version of it, `NAME@champion` what the alias means now."""
    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 for every interface of the machine."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0: any free port."""
    folder: Path | None = None
    """Uploads, results, tokens and audit log; every machine of the service must see it. None: `serving` below
    `storage.root`."""
    database_url: str | None = None
    """SQLAlchemy address of the jobs, such as postgresql+psycopg://medgen3d@db/jobs. None: a SQLite file in `folder`,
    good for one machine."""
    max_queued: PositiveInt = 200
    """Jobs that wait; more are refused with 503."""
    max_running: PositiveInt = 4
    """Jobs that one process of the service runs at a time."""
    jobs_per_owner: PositiveInt = 50
    """Unfinished jobs of one owner; more are refused with 429."""
    requests_per_minute: PositiveInt = 120
    """Requests that make a job, of one owner, in the long run; more are refused with 429."""
    request_burst: PositiveInt = 60
    """Requests that make a job, of one owner, at once."""
    max_streams: PositiveInt = 200
    """Event streams and waiting requests that one process holds open; more are refused with 503."""
    max_count: PositiveInt = 500
    """Pairs of one job."""
    max_voxels: PositiveInt = 2**27
    """Voxels of all pairs of a job together, drawn or resampled [voxels]."""
    max_upload_bytes: PositiveInt = 64 * 2**20
    """Body of a request that brings a mask [bytes], compressed as it may be."""
    max_pairs_waited_for: PositiveInt = 8
    """Pairs of one POST /v1/pairs, whose client waits."""
    lease_s: PositiveFloat = 15.0
    """Time after which a runner that gave no sign of life loses its jobs to another one."""
    max_attempts: PositiveInt = 5
    """How often a job is begun before it ends as failed."""
    keep_results_h: PositiveFloat = 168.0
    """Time for which a job and its result are kept after its end [hours]."""
    engine: EngineConfig = EngineConfig()
    """The processes that draw."""

    @model_validator(mode="after")
    def _postgres_driver(self) -> Self:
        if self.database_url and not self.database_url.startswith(("sqlite:///", "postgresql+psycopg://")):
            scheme = self.database_url.partition(":")[0]
            raise ValueError(f"database_url must begin with sqlite:/// or postgresql+psycopg://, got {scheme}")
        return self


class ExperimentConfig(ConfigSection):
    """Everything that can be chosen, in one tree."""

    seed: NonNegativeInt = 0
    """The one seed from which every random stream is derived."""
    ingest: IngestConfig = IngestConfig()
    mask_generator: MaskGeneratorConfig = MaskGeneratorConfig()
    image_sequence_generator: ImageSequenceGeneratorConfig = ImageSequenceGeneratorConfig()
    refiner: RefinerConfig = RefinerConfig()
    segmenter: SegmenterConfig = SegmenterConfig()
    training: TrainingConfig = TrainingConfig()
    cluster: ClusterConfig = ClusterConfig()
    synthesis: SynthesisConfig = SynthesisConfig()
    usefulness: UsefulnessConfig = UsefulnessConfig()
    storage: StorageConfig = StorageConfig()
    serving: ServingConfig = ServingConfig()

    @property
    def serving_dir(self) -> Path:
        """Folder of the HTTP service: uploads, results, tokens, audit log and, unless set otherwise, its database."""
        return (self.serving.folder or self.storage.root / "serving").absolute()

    def with_absolute_paths(self) -> Self:
        """The same for processes that run in other folders."""
        storage = self.storage.model_copy(update={"root": self.storage.root.absolute()})
        return self.model_copy(
            update={"storage": storage, "serving": self.serving.model_copy(update={"folder": self.serving_dir})}
        )

    def to_yaml(self) -> str:
        """The whole tree, defaults included; `load_config` reads it back to an equal configuration."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
