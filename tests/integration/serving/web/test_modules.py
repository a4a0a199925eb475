"""The page's modules, each for itself in a browser, against volumes that Python writes."""

import base64
import gzip
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI

from medgen3d.artifacts import nifti
from medgen3d.core.volume import Volume, affine_from_spacing
from medgen3d.serving.api import page as page_files

READ = """
const { readNifti } = await import("/page/nifti.js");
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const read = (text) => readNifti(new Blob([bytes(text)]));
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The page's files alone, without a service."""
    app = FastAPI()
    app.include_router(page_files.router)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def page(chromium, address) -> Iterator[Any]:
    with chromium.new_page() as page:
        page.goto(address)
        yield page


def run(page: Any, body: str, argument: object = None) -> Any:
    return page.evaluate(f"async (given) => {{ {body} }}", argument)


def as_text(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def small_volume(dtype: str = "int16") -> Volume:
    """Every voxel differs: 0, 1, ... 23."""
    return Volume(voxels=np.arange(24, dtype=dtype).reshape(2, 3, 4), affine=affine_from_spacing((3.0, 0.5, 0.75)))


@pytest.mark.parametrize("axis_codes", ["RAS", "LPS", "PIR", "SLA"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64", "int64"])
def test_a_volume_of_any_orientation_and_voxel_type_is_read_as_it_was_written(page, tmp_path, axis_codes, dtype):
    volume = small_volume(dtype)
    nifti.write(tmp_path / "a.nii.gz", volume, axis_codes)
    shape, spacing_mm, values = run(
        page,
        READ
        + """
        const volume = await read(given);
        const values = [];
        const [width, height, depth] = volume.shape;
        for (let z = 0; z < depth; z++) for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
          values.push(volume.at([x, y, z]));
        }
        return [volume.shape, volume.spacing_mm, values];
        """,
        as_text(tmp_path / "a.nii.gz"),
    )
    assert shape == [4, 3, 2]
    assert spacing_mm == [0.75, 0.5, 3.0]
    assert values == list(range(24))


def test_a_damaged_file_is_refused_with_a_sentence(page, tmp_path):
    nifti.write(tmp_path / "a.nii.gz", small_volume())
    whole = gzip.decompress((tmp_path / "a.nii.gz").read_bytes())
    (tmp_path / "short.nii").write_bytes(whole[:-1])
    (tmp_path / "other.nii").write_bytes(b"GIF89a" + whole[6:])
    say = READ + "return read(given).then(() => 'read', (error) => error.message);"
    assert "fewer voxels than it says" in run(page, say, as_text(tmp_path / "short.nii"))
    assert "not a NIfTI file" in run(page, say, as_text(tmp_path / "other.nii"))


def test_the_patients_right_front_and_head_are_at_the_top_left(page, tmp_path):
    voxels = np.zeros((2, 3, 4), np.uint8)
    voxels[-1, -1, -1] = 200  # superior, anterior, right
    nifti.write(tmp_path / "a.nii.gz", Volume(voxels=voxels, affine=np.eye(4)))
    found = run(
        page,
        READ
        + """
        const { PLANES, greyPixels } = await import("/page/planes.js");
        const volume = await read(given);
        const last = { axial: 1, coronal: 2, sagittal: 3 };
        return Object.entries(PLANES).map(([name, plane]) => {
          const grey = greyPixels(plane, volume, last[name], { window: 200, level: 100 });
          return [...grey].filter((_, at) => at % 4 === 0);
        });
        """,
        as_text(tmp_path / "a.nii.gz"),
    )
    assert found == [[255] + 11 * [0], [255] + 7 * [0], [255] + 5 * [0]]


def test_the_pixels_of_a_mask_are_coloured_where_its_label_is_switched_on(page, tmp_path):
    voxels = np.array([[[0, 7, 300, 7]]], np.uint16)
    nifti.write(tmp_path / "a.nii.gz", Volume(voxels=voxels, affine=np.eye(4)))
    pixels = run(
        page,
        READ
        + """
        const { PLANES, maskPixels } = await import("/page/planes.js");
        return [...maskPixels(PLANES.axial, await read(given), 0, new Map([[300, [1, 2, 3]]]))];
        """,
        as_text(tmp_path / "a.nii.gz"),
    )
    assert np.reshape(pixels, (4, 4)).tolist() == [[0] * 4, [1, 2, 3, 255], [0] * 4, [0] * 4]


def test_grey_values_run_from_black_to_white_within_the_window(page, tmp_path):
    voxels = np.array([[[-100, 0, 50, 100, 200]]], np.float32)
    nifti.write(tmp_path / "a.nii.gz", Volume(voxels=voxels, affine=np.eye(4)))
    pixels = run(
        page,
        READ
        + """
        const { PLANES, greyPixels } = await import("/page/planes.js");
        return [...greyPixels(PLANES.axial, await read(given), 0, { window: 100, level: 50 })];
        """,
        as_text(tmp_path / "a.nii.gz"),
    )
    assert np.reshape(pixels, (5, 4)).tolist() == [[grey, grey, grey, 255] for grey in (255, 255, 128, 0, 0)]


def test_a_point_of_a_plane_is_the_voxel_that_is_drawn_there(page, tmp_path):
    nifti.write(tmp_path / "a.nii.gz", small_volume())
    voxels = run(
        page,
        READ
        + """
        const { PLANES, voxelAt } = await import("/page/planes.js");
        const volume = await read(given);
        return [
          voxelAt(PLANES.axial, volume, 1, 0.5, 0.5),
          voxelAt(PLANES.coronal, volume, 2, 3.9, 1.1),
          voxelAt(PLANES.sagittal, volume, 0, -9, 99),
        ];
        """,
        as_text(tmp_path / "a.nii.gz"),
    )
    assert voxels == [[3, 2, 1], [0, 2, 0], [0, 2, 0]]


def test_a_mask_is_surveyed_what_it_holds_and_where(page, tmp_path):
    voxels = np.zeros((9, 9, 9), np.uint16)
    voxels[2, 3, 4] = 7
    voxels[6, 3, 7:9] = 300
    nifti.write(tmp_path / "a.nii.gz", Volume(voxels=voxels, affine=np.eye(4)))
    nifti.write(tmp_path / "empty.nii.gz", Volume(voxels=0 * voxels, affine=np.eye(4)))
    find = """
    const { survey } = await import("/page/planes.js");
    const { counts, middle } = survey(await read(given));
    return [[...counts].sort(), middle];
    """
    assert run(page, READ + find, as_text(tmp_path / "a.nii.gz")) == [[[0, 726], [300, 2], [7, 1]], [6, 3, 4]]
    assert run(page, READ + find, as_text(tmp_path / "empty.nii.gz")) == [[[0, 729]], [4, 4, 4]]


def test_the_first_forty_labels_have_colours_of_their_own(page):
    colours = run(
        page,
        "const { colour } = await import('/page/planes.js'); return Array.from({length: 40}, (_, n) => colour(n));",
    )
    assert len({tuple(colour) for colour in colours}) == 40
    assert all(0 <= part <= 255 for colour in colours for part in colour)


@pytest.mark.parametrize(
    ("text", "slices"), [("", None), (" 3 ", [3]), ("0-2, 9", [0, 1, 2, 9]), ("5-4", "error"), ("a", "error")]
)
def test_known_slices_are_read_as_people_write_them(page, text, slices):
    read = """
    const { knownSlices } = await import("/page/order.js");
    try { return knownSlices(given); } catch { return "error"; }
    """
    assert run(page, read, text) == slices


def test_a_model_card_is_shown_with_its_structure_and_never_as_markup(page):
    card = (
        "---\nlicence: X\nsummary: Y\n---\n# Name\n\n"
        "Text with `code`, **weight** and <img src=x onerror=alert(1)>\nin it.\n\n"
        "- one\n- two\n  goes on\n\n| a | b |\n| --- | --- |\n| 1 | <b>2</b> |\n\n    command --option\n"
    )
    show = """
    const { cardElements } = await import("/page/card.js");
    return cardElements(given).map((element) => element.outerHTML);
    """
    licence, heading, paragraph, items, table, code = run(page, show, card)
    assert licence == "<p><strong>Licence: </strong>X</p>"
    assert heading == "<h3>Name</h3>"
    assert paragraph == (
        "<p>Text with <code>code</code>, <strong>weight</strong> and &lt;img src=x onerror=alert(1)&gt; in it.</p>"
    )
    assert items == "<ul><li>one</li><li>two goes on</li></ul>"
    assert "<th>a</th><th>b</th>" in table
    assert "<td>1</td><td>&lt;b&gt;2&lt;/b&gt;</td>" in table
    assert code == '<pre tabindex="0">command --option</pre>'


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"state": "queued", "place": 0}, "Next in the queue."),
        ({"state": "queued", "place": 1, "eta_s": 75}, "1 job is before it. About 75 s left."),
        ({"state": "queued", "place": 12, "eta_s": 5400}, "12 jobs are before it. About 1.5 h left."),
        ({"state": "queued"}, "Waiting for its turn."),
        ({"state": "running", "attempts": 2, "eta_s": 4.26}, "Attempt 2. About 4.3 s left."),
        ({"state": "succeeded", "started": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:03:00Z"}, "Took 3 min."),
        ({"state": "cancelled"}, ""),
    ],
)
def test_the_line_below_a_job_says_what_it_waits_for(page, change, line):
    request = {"count": 1, "seed": 0, "depth": None, "style": None, "mask_use": None}
    job = {"id": "j", "request": request, "pipeline": "knee@3", "progress": [], "place": None, "eta_s": None}
    job |= {"attempts": 1, "error": "", "started": None, "ended": None} | change
    show = """
    const { showJob } = await import("/page/job_view.js");
    showJob(given);
    return document.getElementById("job-line").textContent.trim();
    """
    assert run(page, show, job) == line


def test_events_are_read_whatever_their_line_ends_and_pieces_and_taken_up_again_after_a_break(page):
    first = 'event: status\r\ndata: {"state":\r\ndata: "queued"}\r\n\r\n: still here\r\n\r\ndata: {"sta'  # cut off
    last = 'data: {"state": "succeeded"}\n\n'
    bodies = iter([first, last])
    page.route("**/events", lambda route: route.fulfill(content_type="text/event-stream", body=next(bodies)))
    follow = """
    const { follow } = await import("/page/service.js");
    const seen = [];
    await follow("j", ({ state }) => seen.push(state), () => seen.push("lost"), new AbortController().signal);
    return seen;
    """
    assert run(page, follow) == ["queued", "succeeded"]
    page.unroute("**/events")


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            {"status": 429, "json": {"detail": "Too much."}, "headers": {"Retry-After": "7"}},
            "Too much. Try again in 7 s.",
        ),
        ({"status": 422, "json": {"detail": "count: found 0."}}, "count: found 0."),
        ({"status": 502, "body": "<html>"}, "The service answered with status 502."),
    ],
)
def test_a_refusal_is_the_services_own_sentence(page, answer, sentence):
    page.route("**/v1/pipelines", lambda route: route.fulfill(**answer))
    ask = """
    const { pipelines } = await import("/page/service.js");
    return pipelines().then(() => "answered", (error) => error.message);
    """
    assert run(page, ask) == sentence
    page.unroute("**/v1/pipelines")
