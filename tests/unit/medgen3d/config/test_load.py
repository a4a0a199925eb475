import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from medgen3d.config.experiment import ExperimentConfig
from medgen3d.config.load import load_config, named_options, preset_names, preset_text
from medgen3d.core.errors import ConfigError
from medgen3d.ingest.phantom import LABELS


def sentence(**sources) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(**sources)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("preset", preset_names())
def test_every_shipped_preset_loads_and_changes_nothing_but_what_it_names(preset: str):
    def check(named, found):
        if isinstance(named, dict):
            for key, value in named.items():
                check(value, found[key])
        else:
            assert found == named

    check(yaml.safe_load(preset_text(preset)), load_config(presets=[preset]).model_dump(mode="json"))


def test_the_workstation_preset_is_the_default():
    assert load_config(presets=["workstation"]) == load_config() == ExperimentConfig()


@pytest.mark.parametrize(("preset", "kind"), [("thoracic_ct", "thorax_ct"), ("brain_mr", "brain_mr")])
def test_the_example_labels_of_a_domain_preset_fit_its_phantom_once_uncommented(preset: str, kind: str, tmp_path: Path):
    before, _, labels = preset_text(preset).partition("  # labels:")
    (tmp_path / "mine.yaml").write_text(before + "  labels:" + labels.replace("  #   ", "    "))
    assert load_config(tmp_path / "mine.yaml").ingest.labels == LABELS[kind]


def test_of_two_presets_the_later_wins_key_by_key():
    config = load_config(presets=["smoke", "thoracic_ct"])
    assert config.mask_generator.window == 4  # from smoke
    assert config.ingest.hu_window == (-1000, 400)  # from thoracic_ct
    assert load_config(presets=["smoke", "workstation"]).mask_generator.window == 8
    assert load_config(presets=["workstation", "smoke"]).mask_generator.window == 4


def test_a_file_wins_over_presets_and_an_override_over_the_file(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text("training: {refiner: {steps: 7, batch_size: 3}}")
    config = load_config(file, ["smoke"], ["training.refiner.steps=9"])
    assert config.training.refiner.steps == 9
    assert config.training.refiner.batch_size == 3
    assert config.training.refiner.checkpoint_every == 2  # smoke's
    assert config.training.mask_generator.steps == 4  # smoke's


def test_values_of_overrides_are_read_as_yaml():
    config = load_config(
        overrides=[
            "ingest.plane=[64, 48]",
            "training.refiner.learning_rate=3e-4",
            "cluster.use_gpu=true",
            "storage.tracking_uri=http://mlflow:5000",
            "ingest.labels={3: left lung}",
        ]
    )
    assert config.ingest.plane == (64, 48)
    assert config.training.refiner.learning_rate == 0.0003
    assert config.cluster.use_gpu is True
    assert config.storage.tracking_uri == "http://mlflow:5000"
    assert config.ingest.labels == {3: "left lung"}


def test_named_options_are_those_of_the_sources_and_not_the_defaults(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text("{refiner: {guidance: 2}, training: {refiner: {steps: 7}}}")
    overrides = ["refiner.start=0.35", "mask_generator.channels=[8]", "mask_generator.attention_levels=[no]"]
    assert named_options(file, overrides=overrides) == {
        "refiner": {"guidance": 2.0, "start": 0.35},
        "mask_generator": {"channels": (8,), "attention_levels": (False,)},
    }
    assert named_options(presets=["workstation"], overrides=["refiner.crop=64"])["refiner"]["crop"] == 64
    assert named_options() == {}
    with pytest.raises(ConfigError, match="guidance must not be negative"):
        named_options(overrides=["refiner.guidance=-1"])


def test_labels_are_replaced_as_a_whole_and_never_mixed(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text("ingest: {labels: {1: heart, 2: aorta}}")
    assert load_config(file, overrides=["ingest.labels={5: spine}"]).ingest.labels == {5: "spine"}


def test_an_empty_file_changes_nothing(tmp_path: Path):
    file = tmp_path / "empty.yaml"
    file.write_text("# nothing yet\n")
    assert load_config(file) == load_config()


def test_naming_one_choice_of_a_stage_keeps_that_stages_own_defaults():
    training = load_config(overrides=["training.image_sequence_generator.steps=9"]).training
    assert training.image_sequence_generator.betas == (0.5, 0.999)
    assert training.image_sequence_generator.learning_rate == 0.0002


def test_what_to_yaml_writes_loads_to_an_equal_configuration(tmp_path: Path):
    config = load_config(presets=["smoke", "brain_mr"], overrides=["ingest.labels={4: left hippocampus}", "seed=3"])
    file = tmp_path / "shown.yaml"
    file.write_text(config.to_yaml())
    assert load_config(file) == config


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("mask_generator.windw=3", ["'mask_generator.windw'", "did you mean 'mask_generator.window'?"]),
        (
            "training.refinr.steps=3",
            ["'training.refinr'", "did you mean 'training.refiner'?", "image_sequence_generator"],
        ),
        ("sed=3", ["'sed'", "did you mean 'seed'?"]),
        ("training.refiner.steps=many", ["training.refiner.steps", "'many'", "integer"]),
        ("training.refiner.steps=0", ["training.refiner.steps", "found 0", "greater than 0"]),
        ("training.refiner.precision=fp8", ["training.refiner.precision", "'fp8'", "'auto', 'fp32' or 'bf16'"]),
        ("training.refiner.learning_rate=.nan", ["training.refiner.learning_rate", "nan", "finite"]),
        ("mask_generator.sampler=euler", ["mask_generator.sampler", "'euler'", "'ddpm', 'ddim' or 'dpm++'"]),
        ("mask_generator.overlap=8", ["mask_generator", "between 1 and window - 1 = 7", "got 8"]),
        ("ingest.plane=[60, 48]", ["ingest", "multiples of 8", "(60, 48)"]),
        ("ingest.plane=[64]", ["ingest.plane", "[64]", "more values"]),
        ("ingest.plane=[64, 64, 64]", ["ingest.plane", "[64, 64, 64]", "at most 2"]),
        ("ingest.hu_window=[400, -1000]", ["ingest", "low below high", "(400.0, -1000.0)"]),
        ("ingest.percentiles=[-1, 99]", ["ingest", "0 <= low < high <= 100", "(-1.0, 99.0)"]),
        ("ingest.split_shares=[0.5, 0.2, 0.2]", ["ingest", "sum to 1", "(0.5, 0.2, 0.2)"]),
        ("ingest.split_shares=[0, 0.5, 0.5]", ["ingest", "the first above 0"]),
        ("seed=yes", ["seed: found true", "expected a number"]),
        ("mask_generator.window=true", ["mask_generator.window: found true"]),
        ("ingest.plane=[true, 48]", ["ingest.plane: found [true, 48]", "expected a number"]),
        ("seed.more=1", ["seed", "{'more': 1}", "integer"]),
        ("refiner=fast", ["'refiner'", "section", "'fast'"]),
        ("refiner.crop", ["--set 'refiner.crop'", "section.key=value"]),
        ("ingest.plane=[64", ["--set 'ingest.plane=[64'", "YAML"]),
    ],
)
def test_a_wrong_override_is_one_sentence_that_names_key_found_and_allowed(override: str, parts: list[str]):
    text = sentence(overrides=[override])
    for part in parts:
        assert part in text


def test_a_typo_in_a_file_names_the_file_and_the_nearest_key(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text("refiner:\n  chanels: [8, 16]\n")
    text = sentence(path=file)
    assert str(file) in text
    assert "'refiner.channels'" in text


@pytest.mark.parametrize(
    ("content", "part"), [("a: [1", "not valid YAML"), ("just words", "section"), ("- 1\n- 2", "section")]
)
def test_a_file_that_is_no_configuration_is_refused(content: str, part: str, tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    text = sentence(path=file)
    assert str(file) in text
    assert part in text


def test_a_missing_file_and_a_binary_file_are_refused_by_name(tmp_path: Path):
    binary = tmp_path / "mine.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "absent.yaml", tmp_path, binary):
        assert str(path) in sentence(path=path)


def test_an_unknown_preset_names_the_nearest_and_lists_all():
    text = sentence(presets=["smok"])
    assert "did you mean 'smoke'?" in text
    for name in preset_names():
        assert name in text


@pytest.mark.parametrize("section", ["mask_generator", "image_sequence_generator", "refiner"])
def test_the_schema_itself_refuses_unknown_keys_inside_a_stage(section: str):
    with pytest.raises(ValidationError, match="surprise"):
        ExperimentConfig.model_validate({section: {"surprise": 1}})


def test_configuration_needs_none_of_the_heavy_libraries():
    script = (
        "import sys; from medgen3d.config.load import load_config; load_config(presets=['smoke']); "
        "print([name for name in ('torch', 'ray', 'mlflow', 'monai', 'numpy') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("preset", preset_names())
def test_the_networks_of_every_preset_can_be_built_and_fit_a_gpu_in_training(preset: str):
    import torch

    from medgen3d_stages.catalogue import STAGE_NAMES, make_stage
    from medgen3d_stages.contract import DataSpec

    config = load_config(presets=[preset])
    plane = (64, 64) if preset == "smoke" else (256, 256)  # of phantoms, or of what one would train on
    spec = DataSpec(num_labels=10, plane=plane, spacing_mm=(2.5, 1.5, 1.5), max_depth=64)
    for name in STAGE_NAMES:
        with torch.device("meta"):  # shapes without memory
            networks = make_stage(name, getattr(config, name), spec).build().values()
        num_parameters = sum(parameter.numel() for network in networks for parameter in network.parameters())
        assert num_parameters * 5 * 4 < 4e9  # weights, EMA, gradients and two moments of Adam [bytes]


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite://", "postgresql://x/y", "jobs.db"])
def test_a_database_that_is_not_supported_is_refused_without_its_password(url: str):
    text = sentence(overrides=[f"serving.database_url={url.replace('x', 'me:secret@x')}"])
    assert "sqlite:/// or postgresql+psycopg://" in text
    assert "secret" not in text


def test_a_service_lies_below_the_storage_root_unless_its_folder_is_named():
    assert load_config(overrides=["storage.root=/tmp/runs"]).serving_dir == Path("/tmp/runs/serving")
    assert load_config(overrides=["serving.folder=/tmp/served"]).serving_dir == Path("/tmp/served")


@pytest.mark.parametrize("address", ["s3://bucket/runs", "gs://bucket", "hdfs://host/runs"])
def test_an_address_of_an_object_store_is_no_folder_for_runs(address: str):
    with pytest.raises(ConfigError, match=f"a folder that every machine sees, got {address}"):
        load_config(None, [], [f"storage.root={address}"])
