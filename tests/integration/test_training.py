"""Training through Ray Train on a real local cluster: what it learns, and what it does when something goes wrong."""

import fcntl
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import ray
import torch
from ray.cluster_utils import Cluster
from typer.testing import CliRunner

from medgen3d import cli
from medgen3d.artifacts.bundle import read_bundle
from medgen3d.artifacts.bundle_weights import named_weights
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.config.experiment import ExperimentConfig
from medgen3d.config.load import load_config
from medgen3d.core.errors import DataError
from medgen3d.core.seeds import stream_seed
from medgen3d.ingest.on_ray import ingest
from medgen3d.ingest.phantom import write_phantoms
from medgen3d.recipes.train import StageResult, plan_runs, train_stages
from medgen3d.registry.tracking import Tracking
from medgen3d.registry.versions import list_versions
from medgen3d.training.batches import ExampleSet, StepSampler, batches
from medgen3d.training.loop import Turn, train
from medgen3d.training.on_ray.fit import Progress
from medgen3d.training.stage_factory import stage_for
from medgen3d.training.state import TrainingState
from medgen3d_stages.precision import uses_bf16

pytestmark = pytest.mark.timeout(600)  # Ray takes long to start on a busy machine

STEPS, CHECKPOINT_EVERY = 40, 3
PATIENCE_S = 200
CPU = torch.device("cpu")
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def data(ray_cluster, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_phantoms("brain_mr", 6, 0, root / "phantoms", size=(8, 16, 16))
    ingest(root / "phantoms", root / "prepared", load_config(presets=["smoke"]).ingest, seed=0, name="heads")
    return root / "prepared"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("store")


def settings(stage: str, store: Path, *more: str) -> list[str]:
    """The overrides of a training that is long enough to be disturbed and logs every step."""
    own = {"steps": STEPS, "checkpoint_every": CHECKPOINT_EVERY, "preview_every": STEPS, "learning_rate": 0.003}
    return [f"training.{stage}.{key}={value}" for key, value in own.items()] + [f"storage.root={store}", *more]


def arguments(stage: str, name: str, data: Path, overrides: list[str]) -> list[str]:
    """The same as words of the command line."""
    words = ["train", stage, "--data", str(data), "--name", name, "--preset", "smoke"]
    return words + [word for each in overrides for word in ("--set", each)]


def experiment(overrides: list[str]) -> ExperimentConfig:
    return load_config(presets=["smoke"], overrides=overrides)


def fit(
    stage: str,
    data: Path,
    config: ExperimentConfig,
    name: str,
    progress: Progress = lambda *_: None,
) -> StageResult:
    (result,) = train_stages(plan_runs([stage], data, config, name), data, config, progress)
    return result


def run(words: list[str]) -> tuple[int, str]:
    """Exit code and stderr of the command line, in this process and on its cluster."""
    result = CliRunner().invoke(cli.app, words)
    return result.exit_code, result.stderr


def sentence(words: list[str]) -> str:
    """What a command that refuses says."""
    code, stderr = run(words)
    assert code == 2, stderr
    assert "Traceback" not in stderr
    (line,) = [line for line in stderr.splitlines() if line.startswith("Error: ")]
    return line


class Logged:
    """What MLflow holds of a training run."""

    def __init__(self, config: ExperimentConfig, run_name: str) -> None:
        self.client = Tracking.of(config.storage).client()
        runs = self.client.search_runs([self.client.get_experiment_by_name("heads").experiment_id])
        (self.run,) = [each for each in runs if each.info.run_name == run_name]

    def steps(self, metric: str) -> list[int]:
        """In the order in which they were logged."""
        history = self.client.get_metric_history(self.run.info.run_id, metric)
        return [each.step for each in sorted(history, key=lambda each: (each.timestamp, each.step))]

    def num_pictures(self) -> int:
        return len([each for each in self.client.list_artifacts(self.run.info.run_id, "images") if "png" in each.path])


def assert_resumed_at_checkpoints(steps: list[int]) -> None:
    """`steps` are all, in the order in which they were logged: the first once, others again after a checkpoint."""
    assert set(steps) == set(range(1, STEPS + 1))
    assert steps.count(1) == 1
    for earlier, later in pairwise(steps):
        assert later == earlier + 1 or (later <= earlier and (later - 1) % CHECKPOINT_EVERY == 0)


def bundle_weights(result: StageResult) -> Weights:
    return named_weights(read_bundle(result.trained.bundle).trained_stage().networks)


# Two workers, one of which is killed


@pytest.fixture(scope="module")
def killed(data, store, ray_processes) -> tuple[ExperimentConfig, StageResult]:
    """A training of two workers, one of which dies half way."""
    config = experiment(settings("mask_generator", store, "cluster.num_workers=2"))
    killed = []

    def kill_one(stage: str, step: int, steps: int, metrics: dict[str, float]) -> None:
        if step > 2 * CHECKPOINT_EVERY and not killed:
            assert step < steps
            killed.append(ray_processes("RayTrainWorker")[-1])
            killed[0].kill()

    result = fit("mask_generator", data, config, "killed", kill_one)
    assert killed
    return config, result


def test_a_run_that_loses_a_worker_goes_on_from_its_last_checkpoint_to_the_last_step(killed):
    config, result = killed
    steps = Logged(config, "killed.mask_generator").steps("train/denoiser/total")
    assert (result.trained.step, steps[-1]) == (STEPS, STEPS)
    assert_resumed_at_checkpoints(steps)


def test_two_workers_learn_what_the_mean_of_their_gradients_teaches_even_if_one_is_killed(killed, data):
    config, result = killed
    prepared, choices = PreparedSet(data), config.training.mask_generator
    stage = stage_for("mask_generator", config, prepared)
    state, examples = TrainingState(stage, choices, config.seed, CPU), ExampleSet.of(prepared, stage, config.seed)
    turn, optimizer = Turn(stage, "denoiser", state.networks), state.optimizers["denoiser"]
    both = [iter(batches(examples, StepSampler(0, STEPS, choices.batch_size, rank, 2), 0)) for rank in (0, 1)]
    turn.select()
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        for rank, own in enumerate(both):
            rng = torch.Generator().manual_seed(stream_seed(config.seed, stage.name, "step", step, rank))
            with torch.autocast("cpu", torch.bfloat16, enabled=uses_bf16(choices.precision, CPU)):
                loss = turn(next(own), rng, step / STEPS)["total"]
            (loss / 2).backward()
        torch.nn.utils.clip_grad_norm_(turn.trained.parameters(), choices.clip_norm)
        optimizer.step()
        state.schedules["denoiser"].step()
        state.update_ema()
    found = bundle_weights(result)
    for name, expected in state.bundle_weights().items():
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-5, msg=name)


def test_losses_speed_and_a_preview_arrive_in_one_mlflow_run(killed):
    config, result = killed
    logged = Logged(config, "killed.mask_generator")
    assert logged.run.info.run_id == result.trained.run.mlflow_run
    assert logged.run.info.status == "FINISHED"
    assert logged.run.data.metrics["train/examples_per_second"] > 0
    assert logged.run.data.params["training.mask_generator.steps"] == str(STEPS)
    assert logged.num_pictures() >= 1


def test_a_finished_run_is_registered_once_however_often_it_is_resumed(killed, data):
    config, result = killed
    for _ in range(2):
        again = fit("mask_generator", data, config, "killed")
        assert again.version == result.version
    assert len(list_versions(Tracking.of(config.storage), "heads.mask_generator")) == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("training.mask_generator.learning_rate=0.1", r"training\.mask_generator\.learning_rate 0.003, .* 0.1;"),
        ("mask_generator.window=8", r"mask_generator\.window 4, but now it is 8;"),
        ("seed=7", "seed 0, but now it is 7;"),
        ("cluster.num_workers=1", "num_workers 2, but now it is 1;"),
    ],
)
def test_resuming_with_another_choice_is_refused_and_the_choice_is_named(killed, data, store, change, field):
    config = experiment(settings("mask_generator", store, "cluster.num_workers=2", change))
    with pytest.raises(DataError, match=field):
        fit("mask_generator", data, config, "killed")


def test_resuming_with_another_data_set_is_refused(killed, data, tmp_path):
    other, (config, _) = tmp_path / "other", killed
    shutil.copytree(data, other)
    contents = other / "dataset.yaml"
    contents.write_text(contents.read_text().replace("name: heads", "name: chests"))
    with pytest.raises(DataError, match="dataset heads, but now it is chests"):
        fit("mask_generator", other, config, "killed")


# One worker, whose command is killed, then interrupted, then left in peace


class Command:
    """A `medgen3d` process at a terminal of its own, as a person would run it."""

    def __init__(self, words: list[str]) -> None:
        self.screen, terminal = pty.openpty()
        self.seen = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "medgen3d", *words],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
            preexec_fn=_take_terminal,
            env=os.environ | {"COLUMNS": "160", "TERM": "xterm"},
        )
        os.close(terminal)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        while True:
            try:
                self.seen += os.read(self.screen, 65536).decode(errors="replace")
            except OSError:  # nobody writes any more
                return

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not is_so():
            assert self.process.poll() is None, self.seen
            assert time.monotonic() < end, self.seen
            time.sleep(0.05)

    def step(self) -> int:
        """The last step number that is to be seen."""
        return max((int(number) for number in re.findall(rf"(\d+)/{STEPS}\b", self.seen)), default=0)

    def press_ctrl_c(self) -> None:
        os.write(self.screen, b"\x03")

    def finish(self) -> int:
        code = self.process.wait(PATIENCE_S)
        self.reader.join(5)
        return code

    def remove(self) -> None:
        for process in _session(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()
        os.close(self.screen)


def _take_terminal() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it, and pass that on
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _session(leader: int) -> list[int]:
    members = []
    for process in psutil.pids():
        with suppress(OSError):  # ended meanwhile, or is somebody else's
            if os.getsid(process) == leader:
                members.append(process)
    return members


@pytest.fixture
def command() -> Iterator[Callable[[list[str]], Command]]:
    begun = []

    def begin(words: list[str]) -> Command:
        begun.append(Command(words))
        return begun[-1]

    yield begin
    for each in begun:
        each.remove()


@pytest.mark.parametrize("is_killed", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_a_training_that_is_interrupted_or_killed_ends_with_the_weights_of_one_that_was_left_in_peace(
    data, store, command, is_killed
):
    name, stage = f"disturbed{is_killed}", "image_sequence_generator"
    # Ray Train takes a fifth of a second per checkpoint: one per step leaves time for pressing a key on any machine.
    overrides = settings(stage, store, f"training.{stage}.checkpoint_every=1")
    here = ray.get_runtime_context().gcs_address  # a cluster that outlives its drivers, as those of operators do
    config, words = experiment(overrides), [*arguments(stage, name, data, overrides), "--address", here]
    folder = config.storage.training_dir / f"{name}.{stage}"

    if is_killed:
        first = command(words)
        first.wait_until(lambda: len(list(folder.glob("step-*/state.pt"))) == 2)  # so the first of them is whole
        first.process.send_signal(signal.SIGKILL)
        first.finish()

    second = command(words)
    second.wait_until(lambda: second.step() > 2 * CHECKPOINT_EVERY)
    if is_killed:
        second.process.send_signal(signal.SIGTERM)  # as Kubernetes does
    else:
        second.press_ctrl_c()
    assert second.finish() == 130, second.seen
    (stopped,) = re.findall(rf"{stage}: stopped at step (\d+); the same command goes on", second.seen)
    assert (folder / f"step-{int(stopped):08d}" / "state.pt").exists()
    assert "generator " in second.seen  # the progress line shows losses
    assert "examples/s" in second.seen
    assert "Traceback" not in second.seen

    assert Logged(config, f"{name}.{stage}").run.info.status == "KILLED"
    newest = folder / f"step-{int(stopped):08d}" / "state.pt"
    newest.write_bytes(newest.read_bytes()[:-100])  # so the one before it has to do
    seen = {}
    result = fit(
        stage,
        data,
        config,
        name,
        lambda _stage, step, *_: seen.update({step: Logged(config, f"{name}.{stage}").run.info.status}),
    )
    logged = Logged(config, f"{name}.{stage}")
    assert max(seen) == result.trained.step == STEPS
    assert set(seen.values()) == {"RUNNING"}
    assert result.trained.run.mlflow_run == logged.run.info.run_id
    assert (logged.run.info.status, logged.num_pictures() > 0) == ("FINISHED", True)

    for name, expected in left_in_peace(stage, config, data).items():
        assert torch.equal(bundle_weights(result)[name], expected), name


def left_in_peace(stage_name: str, config: ExperimentConfig, data: Path) -> Weights:
    """What the loop alone learns, without Ray and without a pause."""
    prepared, choices = PreparedSet(data), getattr(config.training, stage_name)
    stage = stage_for(stage_name, config, prepared)
    state = TrainingState(stage, choices, config.seed, CPU)
    loader = batches(ExampleSet.of(prepared, stage, config.seed), StepSampler(0, STEPS, choices.batch_size, 0, 1), 0)
    train(stage, state, loader, choices, seed=config.seed, device=CPU, after_step=lambda *_: True)
    return state.bundle_weights()


# What cannot succeed ends with a sentence


def test_a_training_that_diverges_ends_at_once_with_a_sentence_and_is_not_repeated(data, store):
    overrides = settings("refiner", store, "training.refiner.learning_rate=1e9", "training.refiner.warmup_steps=0")
    said = sentence(arguments("refiner", "diverging", data, overrides))
    assert re.search(r"refiner: the (loss|gradient) of the denoiser became (nan|inf|-inf) at step \d+", said)
    assert "smaller training.refiner.learning_rate" in said
    logged = Logged(experiment(overrides), "diverging.refiner")
    assert logged.steps("train/denoiser/total").count(1) == 1
    assert logged.run.info.status == "FAILED"


def test_more_workers_than_the_cluster_has_room_for_are_refused_at_once_and_nothing_is_begun(data, store):
    overrides = settings("refiner", store, "cluster.num_workers=100")
    said = sentence(arguments("refiner", "crowd", data, overrides))
    assert "100 training workers need 100 CPU, the cluster has 8" in said
    assert not list((store / "training").glob("crowd*"))


@pytest.mark.soak
def test_a_training_waits_for_machines_as_long_as_it_takes(data, tmp_path, command, monkeypatch):
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "2")  # instead of a minute
    (Path(os.environ["RAY_TMPDIR"]) / "ray").mkdir(exist_ok=True)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        wanted = ("cluster.num_workers=2", "cluster.wait_for_resources=true")
        overrides = settings("mask_generator", tmp_path / "store", *wanted)
        words = arguments("mask_generator", "waits", data, overrides)
        training = command([*words, "--address", cluster.address])
        training.wait_until(lambda: "; waiting for machines" in training.seen)
        time.sleep(40)  # ten times as long as the four tries that were all
        assert training.process.poll() is None
        cluster.add_node(num_cpus=2)
        assert training.finish() == 0, training.seen
    finally:
        cluster.shutdown()
