"""What docs/serving.md shows is run as written: the shell examples in order, then the Python one."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from medgen3d.artifacts import nifti

pytestmark = pytest.mark.timeout(1500)  # whoever comes first waits for the service of all

PAGE = (Path(__file__).parents[4] / "docs" / "serving.md").read_text()


def section(title: str) -> str:
    return re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:][titles().index(title)]


def titles() -> list[str]:
    return re.findall(r"^## (.*)$", PAGE, flags=re.MULTILINE)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(service, tmp_path_factory) -> Path:
    """Where all examples have been run; what they said is in `said`."""
    folder = tmp_path_factory.mktemp("client")
    shell = "".join(blocks(section("Call"), "sh"))
    assert shell.count("curl ") > 10
    (python,) = blocks(section("Call"), "python")
    (folder / "example.py").write_text(python.replace("builtin/hippocampus", "knee@champion"))
    # What differs: the address, since a test takes whatever port is free, and the pipeline, a small one.
    shell = shell.replace("http://127.0.0.1:8000", service.client.url).replace("builtin/hippocampus", "knee@champion")
    shell += f"\n{sys.executable} example.py\n"
    tools = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"MEDGEN3D_TOKEN": service.client.token, "PATH": tools}
    command = ["bash", "-euo", "pipefail", "-c", shell]
    with (folder / "said").open("w") as said:
        subprocess.run(command, cwd=folder, env=environment, stdout=said, check=True, timeout=240)
    return folder


def test_the_examples_bring_pairs_of_the_same_pipeline_in_every_way(folder):
    with (
        ZipFile(folder / "pairs.zip") as pairs,
        ZipFile(folder / "few.zip") as few,
        ZipFile(folder / "more.zip") as more,
    ):
        names = {name for name in pairs.namelist() if name.endswith(".nii.gz")}
        assert names == {f"{part}/syn_0000{number}.nii.gz" for part in ("images", "labels") for number in (0, 1)}
        assert {"dataset.json", "manifest.parquet", "request.json"} <= set(pairs.namelist())
        (folder / "first.nii.gz").write_bytes(pairs.read("labels/syn_00000.nii.gz"))
        assert [json.loads(zipped.read("request.json"))["request"]["seed"] for zipped in (few, more)] == [8, 10]
    assert (folder / "first.nii.gz").read_bytes() == (folder / "mask.nii.gz").read_bytes()
    image, mask = (nifti.read(folder / name).volume for name in ("image.nii.gz", "mask.nii.gz"))
    assert image.voxels.shape == mask.voxels.shape
    with ZipFile(folder / "thick.zip") as thick:
        (folder / "thick.nii.gz").write_bytes(thick.read("images/syn_00000.nii.gz"))
    assert nifti.read(folder / "thick.nii.gz").volume.spacing_mm == pytest.approx((2.0, 1.0, 1.0))


def test_the_events_end_with_the_final_state(folder):
    events = [json.loads(line[6:]) for line in (folder / "said").read_text().splitlines() if line.startswith("data: ")]
    assert events[-1]["state"] == "succeeded"
    assert events[-1]["request"]["style"] == 1


def test_a_key_that_is_sent_again_makes_no_second_job(folder, service):
    job = json.loads((folder / "job.json").read_text())
    key = {"Idempotency-Key": "study-7-part-1"}
    assert service.client.ask("POST", "/v1/jobs", json=job["request"], headers=key).json()["id"] == job["id"]


def test_the_partial_mask_of_the_example_is_accepted(folder, service):
    job = json.loads((folder / "partial.json").read_text())
    assert job["request"]["known_slices"] == [0, 2]
    assert service.client.wait(job["id"])["state"] == "succeeded"


def test_every_status_of_the_interface_is_explained(service):
    rows = re.findall(r"^\| (\d{3}) \|", section("Refusals"), flags=re.MULTILINE)
    paths = service.client.ask("GET", "/openapi.json").json()["paths"]
    answered = {status for methods in paths.values() for method in methods.values() for status in method["responses"]}
    assert {status for status in answered if status >= "400"} <= set(rows)
