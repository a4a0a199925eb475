import io
import json
from datetime import UTC, datetime

import pytest
from PIL import Image
from pydantic import ValidationError

from medgen3d.artifacts.manifest import SyntheticSetInfo
from medgen3d.artifacts.report import (
    EvaluatedPipeline,
    Report,
    SetDescription,
    Verdict,
)
from medgen3d.artifacts.report_files import read_report, write_report
from medgen3d.artifacts.report_parts import Metric, Picture, ReportSection
from medgen3d.core.errors import ArtifactError


def png(width=3, height=2):
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, format="PNG")
    return file.getvalue()


def verdict(passed):
    return Verdict(metric="a.b", goal="a: at most 1", value=1, floor=None, ratio=None, passed=passed)


def section(name="fidelity", picture="plot.png"):
    return ReportSection(
        name=name,
        title="Fidelity",
        about="How it is measured.",
        metrics=[Metric(name=f"{name}.fid", title="FID", value=2.0, floor=1.0, num=20)],
        pictures=[Picture(file=picture, caption="A plot", alt="Lines")],
    )


def make_report(verdicts=(), sections=(), phantom=False):
    return Report(
        created=datetime(2020, 2, 3, 4, 5, tzinfo=UTC),
        code_version="1.2.3",
        spacing_mm=(3.0, 0.5, 0.5),
        real=SetDescription(name="knee", num_cases=80, phantom=False, facts={}),
        synthetic=SetDescription(name="pairs", num_cases=40, phantom=phantom, facts={}),
        train=None,
        pipeline=EvaluatedPipeline(
            name="knee", version=4, weights_sha256={"refiner": "f" * 64}, config_hash="c" * 64, dataset_digest="d" * 64
        ),
        verdicts=list(verdicts),
        sections=list(sections),
    )


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [([True, True], True), ([True, False], False), ([True, None], False), ([], False)],
)
def test_a_report_passes_when_every_goal_was_measured_and_met_and_there_is_one(outcomes, expected):
    assert make_report(verdicts=[verdict(outcome) for outcome in outcomes]).passed is expected


def test_the_files_read_back(tmp_path):
    report = make_report(verdicts=[verdict(True)], sections=[section()])
    write_report(tmp_path / "new" / "folder", report, {"plot.png": png()})

    assert read_report(tmp_path / "new" / "folder") == report
    names = {path.name for path in (tmp_path / "new" / "folder").iterdir()}
    assert names == {"report.json", "report.html", "plot.png"}


def test_metrics_are_called_figures_in_the_file(tmp_path):
    write_report(tmp_path, make_report(verdicts=[verdict(True)], sections=[section()]), {"plot.png": png()})
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["verdicts"][0]["figure"] == "a.b"
    assert [each["name"] for each in content["sections"][0]["figures"]] == ["fidelity.fid"]


def test_the_first_schema_is_refused_with_what_to_do(tmp_path):
    write_report(tmp_path, make_report(), {})
    path = tmp_path / "report.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 1}))
    with pytest.raises(ArtifactError, match=r"schema version 1, expected version 2. Write it again with .*evaluate"):
        read_report(tmp_path)


def test_a_folder_without_a_report_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"report\.json: found no such file"):
        read_report(tmp_path)


def test_two_sections_cannot_share_a_name_or_a_picture():
    with pytest.raises(ValidationError, match="names of their own"):
        make_report(sections=[section(), section(picture="other.png")])
    with pytest.raises(ValidationError, match="names of their own"):
        make_report(sections=[section(), section(name="novelty")])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"refined": False}, False),
        ({"masks_digest": "a" * 64}, False),
        ({"sampling": {"refiner": {"start": 0.3}}}, False),
    ],
)
def test_a_pipeline_counts_as_pinned_unless_it_drew_otherwise_than_by_itself(changes, expected):
    info = SyntheticSetInfo(
        dataset_name="knee",
        dataset_digest="d" * 64,
        modality="MR",
        phantom=False,
        labels={0: "background", 1: "bone"},
        spacing_mm=(1, 1, 1),
        axis_codes="RAS",
        image_dtype="int16",
        pipeline_name="knee",
        pipeline_version=4,
        seed=0,
        config_hash="c" * 64,
        weights_sha256={"refiner": "f" * 64},
        batch=8,
        threads=1,
        device="cpu",
        **changes,
    )
    found = EvaluatedPipeline.of(info)
    assert (found.name, found.version, found.dataset_digest) == ("knee", 4, "d" * 64)
    assert found.as_pinned is expected
