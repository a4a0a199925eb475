"""What the documentation says is so: links lead somewhere, commands exist, tables and examples fit the code."""

import dataclasses
import json
import pkgutil
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from pydantic import BaseModel
from typer.main import get_command

from medgen3d.artifacts.bundle import BundleDataset, BundleInfo
from medgen3d.artifacts.goals import Goal, read_goals
from medgen3d.artifacts.intensity import Intensity
from medgen3d.artifacts.manifest import ManifestRow, SyntheticSetInfo, write_rows
from medgen3d.artifacts.pipeline import PinnedBundle, PipelineInfo, PortablePipeline
from medgen3d.artifacts.prepared_set import CaseEntry, DatasetInfo, PreparedCase, case_path, write_prepared_case
from medgen3d.artifacts.provenance import Provenance
from medgen3d.artifacts.report import EvaluatedPipeline, Report, SetDescription, Verdict
from medgen3d.artifacts.report_parts import Metric, Picture, ReportSection, Table
from medgen3d.artifacts.run_status import RunStatus, StageStatus
from medgen3d.artifacts.storage import Folder
from medgen3d.artifacts.usefulness_results import Size, Trial, UsefulnessResults
from medgen3d.cli import app
from medgen3d.config import experiment
from medgen3d.config.load import load_config, preset_names
from medgen3d.config.training import AdversarialTraining, StageTraining
from medgen3d.core.volume import Box
from medgen3d.ingest.problems import Kind
from medgen3d.measures.limits import CaseLimits, LabelLimits, NearCopyLimits
from medgen3d.serving.execution.results import AnsweredRequest
from medgen3d.serving.job_states import STATES, JobState
from medgen3d.serving.schemas import JobRequest
from medgen3d.serving.security.tokens import TokenEntry, TokenFile
from medgen3d.synthesis import plan
from medgen3d.training.run import TrainingRun
from medgen3d.training.state import TrainingState
from medgen3d_stages.catalogue import STAGE_NAMES, config_type, make_stage
from medgen3d_stages.contract import DataSpec

ROOT = Path(__file__).parents[2]
LISTED = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
PAGES = [path for path in LISTED.splitlines() if (ROOT / path).is_file()]
ARTIFACTS, TRAINING, ARCHITECTURE = "docs/artifacts.md", "docs/training.md", "docs/architecture.md"
SERVING = "docs/serving.md"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def prose(text: str) -> str:
    return _FENCE.sub("", text)


def blocks(page: str, *languages: str) -> list[str]:
    return [content for language, content in _FENCE.findall(text_of(page)) if language in languages]


def headings(text: str) -> list[str]:
    return re.findall(r"^#+ (.*)$", prose(text), flags=re.MULTILINE)


def anchor(heading: str) -> str:
    """The name that a Markdown heading gets on the usual hosts."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def tables(page: str) -> dict[str, list[list[str]]]:
    """{heading: the rows, without their first two lines, of the table below it}."""
    found = {}
    for section in re.split(r"^#+ ", prose(text_of(page)), flags=re.MULTILINE)[1:]:
        heading, *lines = section.splitlines()
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
        found[heading] = rows[2:]
    return found


def coded(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def first_column(page: str, heading: str) -> list[str]:
    return [name for row in tables(page)[heading] for name in coded(row[0])]


# Links


def links(page: str) -> list[str]:
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", prose(text_of(page))))
    return [target for target in targets if not target.startswith(("http://", "https://"))]


def leads_somewhere(page: str, target: str) -> bool:
    path, _, fragment = target.partition("#")
    goal = (ROOT / page).parent / path if path else ROOT / page
    return goal.exists() and (not fragment or fragment in map(anchor, headings(goal.read_text())))


@pytest.mark.parametrize(("page", "target"), [(page, target) for page in PAGES for target in links(page)])
def test_a_link_within_the_repository_leads_somewhere(page: str, target: str) -> None:
    assert leads_somewhere(page, target)


@pytest.mark.parametrize("target", ["absent.md", "artifacts.md#no-such-heading", "#no-such-heading"])
def test_a_dead_link_would_be_noticed(target: str) -> None:
    assert not leads_somewhere(TRAINING, target)


@pytest.mark.parametrize("page", PAGES)
def test_a_path_that_is_named_in_code_exists(page: str) -> None:
    folders = "platform|stages|tests|benchmarks|deploy|docs"
    named = re.findall(rf"`((?:{folders})/[\w/.-]+)`", prose(text_of(page)))
    assert [path for path in named if "NNNN" not in path and not (ROOT / path).exists()] == []


# Commands


def commands(page: str) -> list[list[str]]:
    """The words behind `medgen3d` in the shell blocks of a page."""
    found = []
    for line in "".join(blocks(page, "sh", "console")).replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True) if "medgen3d " in line else []
        programs = [place for place, word in enumerate(words) if word.rpartition("/")[2] == "medgen3d"]
        found += [words[place + 1 :] for place in programs]
    return found


def find_command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words name, and the words that are left for it. Raises KeyError where there is none."""
    command = get_command(app)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        command, words = command.commands[words[0]], words[1:]
    return command, words


def parse(words: list[str]) -> dict[str, Any]:
    """What the command line understands of a command, which is not run. Raises where it would exit with 2."""
    command, rest = find_command(words)
    return command.make_context(command.name, rest).params


def options(command: Any) -> set[str]:
    return {"--help"} | {name for option in command.params for name in option.opts}


@pytest.mark.parametrize("words", [words for page in PAGES for words in commands(page)], ids=" ".join)
def test_a_command_in_a_shell_block_is_understood_with_its_presets_and_settings(words: list[str]) -> None:
    given = parse(words)
    load_config(presets=given.get("preset") or [], overrides=given.get("override") or [])


@pytest.mark.parametrize("page", PAGES)
def test_a_command_named_in_a_sentence_exists_with_its_options(page: str) -> None:
    for mention in re.findall(r"`medgen3d (\S[^`]*)`", prose(text_of(page))):
        command, rest = find_command(mention.split())
        assert {word for word in rest if word.startswith("--")} <= options(command), mention


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("reprot --real a", "reprot"),
        ("evaluate --rael a", "--rael"),
        ("evaluate --real a", "Missing parameter: synthetic"),
        ("train all --data a --verbos", "--verbos"),
    ],
)
def test_a_wrong_command_would_be_noticed(line: str, reason: str) -> None:
    with pytest.raises(Exception, match=reason):
        parse(line.split())


@pytest.mark.parametrize("page", [TRAINING, "deploy/README.md"])
def test_a_yaml_block_is_a_configuration(page: str, tmp_path: Path) -> None:
    for block in blocks(page, "yaml"):
        (tmp_path / "part.yaml").write_text(block)
        load_config(tmp_path / "part.yaml")


# The configuration


def plain(values: object) -> dict[str, Any]:
    """Defaults as YAML says them: paths are texts, tuples are lists."""
    if isinstance(values, dict):
        return values
    if isinstance(values, BaseModel):
        return values.model_dump(mode="json")
    return json.loads(json.dumps(dataclasses.asdict(values)))  # type: ignore[call-overload]


OPTIONS = {
    "ingest": [experiment.IngestConfig()],
    "training, one section per stage": [StageTraining(), AdversarialTraining()],
    "cluster": [experiment.ClusterConfig()],
    "synthesis": [experiment.SynthesisConfig()],
    "usefulness": [experiment.UsefulnessConfig()],
    "storage": [experiment.StorageConfig()],
}
SERVED = experiment.ServingConfig()
SECTIONS = [
    *((TRAINING, heading, defaults) for heading, defaults in OPTIONS.items()),
    *((f"stages/medgen3d_stages/{name}/README.md", "Options", [config_type(name)()]) for name in STAGE_NAMES),
    (SERVING, "Limits", [SERVED.model_dump(mode="json", exclude={"engine"})]),
    (SERVING, "Scale", [SERVED.engine.mask_generator, SERVED.engine.image_sequence_generator, SERVED.engine.refiner]),
    (SERVING, "All stages", [SERVED.engine.model_dump(mode="json", exclude={*STAGE_NAMES})]),
]


@pytest.mark.parametrize(
    ("page", "heading", "sections"), SECTIONS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_option_is_documented_with_its_default(page: str, heading: str, sections: list[object]) -> None:
    rows = tables(page)[heading]
    for column, section in enumerate(sections, start=1):
        documented = {row[0].strip("`"): yaml.safe_load(row[column].strip("`")) for row in rows}
        assert documented == plain(section)


def test_every_field_of_a_request_is_documented_with_its_default() -> None:
    rows = tables(SERVING)["What a request may say"]
    documented = {row[0].strip("`"): yaml.safe_load(row[1].strip("`")) for row in rows}
    fields = JobRequest.model_fields.items()
    assert documented == {name: None if field.is_required() else field.default for name, field in fields}


def test_every_state_of_a_job_is_documented_with_its_meaning_and_what_follows() -> None:
    rows = [row for found in tables(SERVING).values() for row in found if row[0].strip("`") in set(JobState)]
    shown = {row[0].strip("`"): (row[1], coded(row[2])) for row in rows}
    assert shown == {
        state: (facts.meaning, [each for each in JobState if each in facts.next]) for state, facts in STATES.items()
    }


def test_every_preset_is_documented() -> None:
    assert sorted(first_column(TRAINING, "2. Configuration")) == preset_names()


def test_every_problem_of_a_case_is_documented() -> None:
    assert first_column(TRAINING, "Problems") == list(get_args(Kind))


# Files

EXAMPLES = [
    DatasetInfo,
    TrainingRun,
    BundleInfo,
    Provenance,
    PipelineInfo,
    ManifestRow,
    SyntheticSetInfo,
    RunStatus,
    UsefulnessResults,
    Report,
]
"""What the examples of docs/artifacts.md are, in their order."""


def example_of(kind: type[BaseModel]) -> dict[str, Any]:
    return yaml.safe_load(blocks(ARTIFACTS, "yaml", "json")[EXAMPLES.index(kind)])


def case_file(folder: Path) -> Path:
    box, intensity = Box(top=0, bottom=2, left=0, right=2), Intensity(low=0, high=1)
    voxels = {"image": np.zeros((2, 2, 2), np.float32), "mask": np.zeros((2, 2, 2), np.uint8)}
    case = PreparedCase(case_id="a", split="train", box=box, affine=np.eye(4), intensity=intensity, **voxels)
    write_prepared_case(folder, 0, case)
    return case_path(folder, 0)


def case_columns(folder: Path) -> list[str]:
    return pa.ipc.open_file(case_file(folder)).schema.names


def case_metadata(folder: Path) -> dict[str, Any]:
    return json.loads(pa.ipc.open_file(case_file(folder)).schema.metadata[b"medgen3d"])


def manifest_columns(folder: Path) -> list[str]:
    write_rows(Folder.of(folder), "manifest.parquet", SyntheticSetInfo.model_validate(example_of(SyntheticSetInfo)), [])
    return pq.read_schema(folder / "manifest.parquet").names


def checkpoint_entries(folder: Path) -> list[str]:
    smoke = load_config(presets=["smoke"])
    spec = DataSpec(num_labels=2, plane=(16, 16), spacing_mm=(1.0, 1.0, 1.0), max_depth=4)
    stage = make_stage("refiner", smoke.refiner, spec)
    TrainingState(stage, smoke.training.refiner, 0, torch.device("cpu")).save(folder)
    return list(torch.load(folder / "state.pt", weights_only=True))


MODELS: dict[str, type[BaseModel]] = {
    "dataset.yaml": DatasetInfo,
    "dataset.yaml, one of cases": CaseEntry,
    "run.json": TrainingRun,
    "config.json": BundleInfo,
    "config.json, dataset": BundleDataset,
    "provenance.json": Provenance,
    "pipeline.json": PipelineInfo,
    "pipeline.json, one of stages": PinnedBundle,
    "pipeline.json of a folder": PortablePipeline,
    "pipeline.json, limits": CaseLimits,
    "pipeline.json, limits of a label": LabelLimits,
    "pipeline.json, limits of near copies": NearCopyLimits,
    "manifest.parquet, its metadata": SyntheticSetInfo,
    "status.json": RunStatus,
    "status.json, one of stages": StageStatus,
    "usefulness.json": UsefulnessResults,
    "usefulness.json, one of sizes": Size,
    "usefulness.json, one of trials": Trial,
    "report.json": Report,
    "report.json, description of a set": SetDescription,
    "report.json, pipeline": EvaluatedPipeline,
    "report.json, one of verdicts": Verdict,
    "report.json, one of sections": ReportSection,
    "report.json, one of figures": Metric,
    "report.json, one of tables": Table,
    "report.json, one of pictures": Picture,
    "goals.yaml, one of the list": Goal,
    "tokens.json": TokenFile,
    "tokens.json, one of tokens": TokenEntry,
    "request.json": AnsweredRequest,
}
OTHERS: dict[str, Callable[[Path], list[str]]] = {
    "cases/NNNNNN.arrow": case_columns,
    "cases/NNNNNN.arrow, its metadata": lambda folder: list(case_metadata(folder)),
    "cases/NNNNNN.arrow, facts": lambda folder: list(case_metadata(folder)["facts"]),
    "state.pt": checkpoint_entries,
    "config.json, spec": lambda _: [field.name for field in dataclasses.fields(DataSpec)],
    "manifest.parquet": manifest_columns,
    "plan.parquet": lambda _: plan.COLUMNS.names,
}


@pytest.mark.parametrize("heading", MODELS)
def test_the_documented_fields_are_those_of_the_model(heading: str) -> None:
    assert sorted(first_column(ARTIFACTS, heading)) == sorted(
        field.alias or name for name, field in MODELS[heading].model_fields.items()
    )


@pytest.mark.parametrize("heading", OTHERS)
def test_the_documented_columns_are_those_that_are_written(heading: str, tmp_path: Path) -> None:
    assert sorted(first_column(ARTIFACTS, heading)) == sorted(OTHERS[heading](tmp_path))


def test_every_table_of_fields_is_compared() -> None:
    with_fields = {
        heading for heading in tables(ARTIFACTS) if re.match(r"[\w/-]+\.(yaml|json|parquet|arrow|pt)\b", heading)
    }
    assert with_fields == MODELS.keys() | OTHERS.keys()


@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)
def test_an_example_is_a_valid_file(kind: type[BaseModel]) -> None:
    assert len(blocks(ARTIFACTS, "yaml", "json")) == len(EXAMPLES)
    kind.model_validate(example_of(kind))


def test_the_example_of_gates_is_a_file_that_is_read(tmp_path: Path) -> None:
    (example,) = (block for block in blocks(ARTIFACTS, "") if "at_most" in block)
    (tmp_path / "goals.yaml").write_text(example)
    assert [goal.metric for goal in read_goals(tmp_path / "goals.yaml")] == [
        "agreement.dice_gap",
        "plausibility.volume.*",
    ]


def test_the_example_of_a_manifest_row_has_every_column(tmp_path: Path) -> None:
    assert sorted(example_of(ManifestRow)) == sorted(manifest_columns(tmp_path))


# The code


def test_every_import_rule_is_listed() -> None:
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert [row[0] for row in tables(ARCHITECTURE)["Import rules"]] == [rule["name"] for rule in rules]


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(medgen3d(?:_stages)?(?:\.\w+)+)`", text_of(ARCHITECTURE)))))
def test_what_the_architecture_page_names_exists(name: str) -> None:
    pkgutil.resolve_name(name)
