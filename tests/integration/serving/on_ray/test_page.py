"""The page in a real browser, before the service on Ray; what needs patience, before one that is told to wait."""

import base64
import gzip
import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx
import nibabel as nib
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from medgen3d.artifacts import nifti
from medgen3d.core.volume import Volume, affine_from_spacing
from medgen3d.serving.security.tokens import create_token, list_tokens, revoke_token
from medgen3d.serving.service import TOKENS

pytestmark = pytest.mark.timeout(1500)  # whoever comes first waits for the service of all

REFUSED = "Failed to load resource: "
"""What Chromium logs about an answer of 400 or more, or none, whatever the page makes of it."""


@dataclass(frozen=True)
class Visitor:
    """Somebody with a token. tokens: The service's file of them."""

    url: str
    token: str
    tokens: Path

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=30)


@pytest.fixture
def visitor(service, request) -> Visitor:
    """Somebody new for each test."""
    owner = f"{request.node.originalname}{time.monotonic_ns()}"[-64:]
    tokens = service.client.folder / TOKENS
    return Visitor(service.client.url, create_token(tokens, owner)[0], tokens)


@pytest.fixture
def slow_service(make_server, tmp_path) -> Iterator[Any]:
    """A service that runs one job at a time, and none to its end before it is told to."""
    with make_server(tmp_path / "slow", max_running=1) as running:
        running.engine.hold.clear()
        yield running
        running.engine.hold.set()


@pytest.fixture
def visit(chromium) -> Iterator[Callable[..., Any]]:
    """visit(visitor, refusals=0, token=..., **options of the context): the page, and an end that looks for errors."""
    pages: list[tuple[Any, Any, list[str], list[str], int]] = []

    def open_page(service: Any, *, refusals: int = 0, token: str | None = None, **options: Any) -> Any:
        context = chromium.new_context(**({"viewport": {"width": 1360, "height": 900}} | options))
        page = context.new_page()
        page.set_default_timeout(60_000)
        said: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        pages.append((service, context, said, asked, refusals))
        page.goto(service.url)
        page.get_by_role("textbox", name="Token").fill(service.token if token is None else token)
        page.get_by_role("button", name="Continue").click()
        if token is None:
            page.get_by_role("button", name="Draw pairs").wait_for()
        return page

    yield open_page
    for service, context, said, asked, refusals in pages:
        context.close()
        assert [line for line in said if REFUSED not in line] == []  # no error, no breach of the security policy
        assert len(said) == refusals
        assert [url for url in asked if not url.startswith((service.url, f"blob:{service.url}"))] == []
        assert [url for url in asked if service.token in url] == []


def order(page: Any, **numbers: int) -> None:
    for label, number in numbers.items():
        page.get_by_label(label, exact=True).fill(str(number))
    page.get_by_role("button", name="Draw pairs").click()
    if "Seed" in numbers:
        page.get_by_text(f"seed {numbers['Seed']} ·").wait_for()


def wait_for_pair(page: Any) -> None:
    """Wait for the first pair of the newest job."""
    page.locator("#job-state", has_text="Done").wait_for()
    page.get_by_text("is shown:").wait_for(state="attached")  # what screen readers are told


def shown(page: Any, plane: str) -> str:
    """The picture of a plane once it is drawn."""
    page.evaluate("() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)))")
    return str(page.get_by_role("img", name=plane).evaluate("(canvas) => canvas.toDataURL()"))


def coloured(page: Any, plane: str) -> int:
    """Pixels of a plane that are not grey."""
    png = base64.b64decode(shown(page, plane).removeprefix("data:image/png;base64,"))
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    return int(np.ptp(pixels, axis=-1).astype(bool).sum())


@contextmanager
def download(page: Any) -> Iterator[list[bytes]]:
    found: list[bytes] = []
    with page.expect_download() as started:
        yield found
    found.append(Path(started.value.path()).read_bytes())


def test_a_job_goes_through_the_page_from_the_order_to_the_files(visitor, visit):
    page = visit(visitor)
    assert page.get_by_label("Pipeline").locator("option").all_inner_texts() == ["knee, version 1"]
    assert page.locator("#facts").inner_text().split("\n") == [
        "Makes", "MR of phantoms, not of anatomy", "Labels", "bone 7", "cartilage 300",
        "Voxel size", "3 × 0.5 × 0.75 mm (slices, rows, columns)",
        "At most", "500 pairs, 9 slices of 16\u00a0×\u00a024",
    ]  # fmt: skip
    order(page, Pairs=2, Seed=5, Depth=7)
    wait_for_pair(page)
    assert page.locator("#job-title").inner_text() == "2 pairs of knee@1"
    assert page.locator("#job-state").inner_text() == "Done"
    assert page.evaluate("document.activeElement.id") == "result"

    with visitor.client() as client:
        job = client.get("/v1/jobs").json()[0]
        whole = client.get(f"/v1/jobs/{job['id']}/result").content
    assert (job["request"]["count"], job["request"]["seed"], job["request"]["depth"]) == (2, 5, 7)
    with ZipFile(io.BytesIO(whole)) as files:
        first = {part: files.read(f"{part}/syn_00000.nii.gz") for part in ("images", "labels")}
    mask = nib.Nifti1Image.from_bytes(gzip.decompress(first["labels"])).get_fdata()
    for name, label in (("bone", 7), ("cartilage", 300)):
        milliliters = (mask == label).sum() * 3 * 0.5 * 0.75 / 1000
        said = page.get_by_role("checkbox", name=name).locator("xpath=..").inner_text().split()
        assert said[:3] == [name, str(label), "·"]
        assert float(said[3]) == pytest.approx(milliliters, rel=0.005)

    with download(page) as saved:
        page.get_by_role("button", name="Save all").click()
    assert saved == [whole]
    for button, part in (("Save image", "images"), ("Save mask", "labels")):
        with download(page) as saved:
            page.get_by_role("button", name=button).click()
        assert saved == [first[part]]


def test_slices_labels_and_grey_values_change_what_is_shown(visitor, visit):
    page = visit(visitor)
    order(page, Seed=6, Depth=9)
    wait_for_pair(page)
    axial = page.get_by_role("slider", name="Axial")
    axial.focus()
    page.keyboard.press("Home")
    before = shown(page, "Axial")
    assert axial.get_attribute("aria-valuetext").startswith("1 of 9; under the crosshair: ")
    page.keyboard.press("ArrowUp")
    after = shown(page, "Axial")
    assert axial.get_attribute("aria-valuetext").startswith("2 of 9; ")
    assert after != before

    in_colour = coloured(page, "Axial")
    for name in ("bone", "cartilage"):
        page.get_by_role("checkbox", name=name).uncheck()
    assert coloured(page, "Axial") == 0 < in_colour
    page.get_by_role("checkbox", name="bone").focus()
    page.keyboard.press("Space")
    assert 0 < coloured(page, "Axial") < in_colour

    grey = shown(page, "Axial")
    page.get_by_role("slider", name="Level").press("Home")
    assert shown(page, "Axial") != grey
    page.get_by_role("button", name="Reset").click()
    assert shown(page, "Axial") == grey

    readout = page.locator("#readout")
    where = readout.inner_text()
    page.get_by_role("img", name="Coronal").click(position={"x": 60, "y": 150})
    shown(page, "Axial")
    assert readout.inner_text() != where


def test_the_pairs_of_a_job_are_stepped_through(visitor, visit):
    page = visit(visitor)
    order(page, Pairs=2, Seed=7)
    wait_for_pair(page)
    first = shown(page, "Axial")
    assert page.get_by_role("button", name="Previous pair").is_disabled()
    page.get_by_role("button", name="Next pair").click()
    page.get_by_text("Pair 2 of 2 is shown").wait_for(state="attached")
    assert shown(page, "Axial") != first
    assert page.get_by_role("button", name="Next pair").is_disabled()
    page.get_by_label("Pair shown").select_option("1 of 2")
    page.get_by_text("Pair 1 of 2 is shown").wait_for(state="attached")
    assert shown(page, "Axial") == first


def test_progress_place_in_the_queue_and_cancelling_are_seen(slow_service, visit):
    page = visit(slow_service)
    order(page, Pairs=1, Seed=1)
    mask_stage = page.get_by_role("progressbar", name="Mask generator")
    mask_stage.wait_for()
    assert [mask_stage.evaluate(f"(bar) => bar.{name}") for name in ("value", "max")] == [1, 2]
    assert page.get_by_role("status").inner_text() == "Drawing, mask generator 50 per cent"
    assert hindrances(page) == []

    order(page, Seed=2)
    page.get_by_text("Next in the queue.", exact=True).wait_for()
    jobs = page.get_by_role("navigation", name="Your newest jobs").get_by_role("button")
    assert jobs.all_inner_texts() == ["1 pair, seed 2 Waiting", "1 pair, seed 1 Drawing"]
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.locator("#job-state", has_text="Cancelled").wait_for()
    jobs.nth(1).click()
    page.locator("#job-state", has_text="Drawing").wait_for()
    page.get_by_role("button", name="Cancel", exact=True).press("Enter")
    page.locator("#job-state", has_text="Cancelled").wait_for()
    assert page.get_by_role("button", name="Cancel", exact=True).is_hidden()
    assert page.evaluate("document.activeElement.id") == "result"
    deadline = time.monotonic() + 30
    while slow_service.engine.live:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_failed_job_says_why(slow_service, poisoned, visit):
    slow_service.engine.fails.append(poisoned("the mask is too thin to be drawn"))
    page = visit(slow_service)
    order(page, Seed=4)
    page.locator("#job-state", has_text="Drawing").wait_for()
    slow_service.engine.hold.set()
    page.get_by_role("alert").get_by_text("the mask is too thin to be drawn").wait_for()
    assert page.locator("#job-state").inner_text() == "Failed"
    assert page.get_by_role("img", name="Axial").is_hidden()


def test_a_token_is_refused_before_it_is_known_and_after_it_was_revoked(visitor, visit):
    page = visit(visitor, token="mg3d_wrong", refusals=2)
    page.get_by_text("found no valid token").wait_for()
    assert page.get_by_role("button", name="Draw pairs").is_hidden()
    assert page.evaluate("document.activeElement.id") == "token"
    page.keyboard.type(visitor.token)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Draw pairs").wait_for()
    page.reload()  # the tab still knows it
    page.get_by_role("button", name="Draw pairs").wait_for()
    page.wait_for_load_state("networkidle")
    tokens = visitor.tokens
    revoke_token(tokens, list_tokens(tokens)[-1].id)
    order(page)
    page.get_by_text("found no valid token").wait_for()
    assert page.evaluate("sessionStorage.length") == 0


def test_a_token_is_forgotten_on_demand(visitor, visit):
    page = visit(visitor)
    page.get_by_role("button", name="Forget token").click()
    page.get_by_role("textbox", name="Token").wait_for()
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    page.reload()
    page.get_by_role("textbox", name="Token").wait_for()


def test_a_result_that_is_gone_is_told(visitor, visit):
    page = visit(visitor, refusals=1)
    page.route("**/result?file=dataset.json", lambda route: route.fulfill(status=404, json={"detail": "It is gone."}))
    order(page, Seed=15)
    page.get_by_role("alert").get_by_text("It is gone.").wait_for()
    assert page.get_by_role("img", name="Axial").is_hidden()


def test_a_bad_mask_is_refused_with_the_services_sentence_and_a_good_one_is_kept(visitor, visit, tmp_path):
    voxels = np.zeros((5, 14, 22), np.uint16)
    voxels[2, 4:10, 6:16] = 300
    good, bad = tmp_path / "good.nii.gz", tmp_path / "bad.nii.gz"
    nifti.write(good, Volume(voxels=voxels, affine=affine_from_spacing((3.0, 0.5, 0.75))))
    bad.write_bytes(good.read_bytes()[:-20])

    page = visit(visitor, refusals=1)
    page.get_by_label("Mask file").set_input_files(bad)
    assert page.get_by_label("Depth").is_disabled()
    order(page)
    page.get_by_role("alert").get_by_text("mask: found a truncated gzip file").wait_for()

    page.get_by_label("Mask file").set_input_files(good)
    order(page, Seed=8)
    wait_for_pair(page)
    assert page.locator("#job-summary").inner_text().startswith("seed 8 · for a mask of your own")
    with download(page) as saved:
        page.get_by_role("button", name="Save mask").click()
    (kept,) = saved
    (tmp_path / "kept.nii.gz").write_bytes(kept)
    np.testing.assert_array_equal(nifti.read(tmp_path / "kept.nii.gz").volume.voxels, voxels)

    page.get_by_label("Partial").check()
    page.get_by_role("textbox", name="Known slices").fill("2-x")
    page.get_by_role("button", name="Draw pairs").click()
    assert (
        page.get_by_role("textbox", name="Known slices")
        .evaluate("(field) => field.validationMessage")
        .startswith("Known slices read")
    )
    page.get_by_role("textbox", name="Known slices").fill("2")
    order(page, Seed=9)
    page.get_by_text("from a partial mask").wait_for()
    page.locator("#job-state", has_text="Done").wait_for()


def test_a_connection_that_breaks_is_taken_up_again(visitor, visit):
    page = visit(visitor, refusals=2)
    page.route("**/events", lambda route: route.fulfill(status=503, json={"detail": "busy"}), times=1)
    # As a proxy of Ray Serve answers that has just been started; the route that is added last is asked first.
    page.route("**/events", lambda route: route.fulfill(status=404, body="Path not found."), times=1)
    order(page, Seed=10)
    wait_for_pair(page)
    page.reload()
    wait_for_pair(page)
    assert page.locator("#job-summary").inner_text().startswith("seed 10")


def test_an_order_whose_answer_is_lost_makes_one_job_however_often_it_is_sent(visitor, visit):
    def lose_the_answer(route: Any) -> None:
        route.fetch()
        route.abort()

    page = visit(visitor, refusals=1)
    page.route("**/v1/jobs", lose_the_answer, times=1)
    order(page)
    page.get_by_role("alert").get_by_text("The service does not answer").wait_for()
    order(page, Seed=0)
    wait_for_pair(page)
    with visitor.client() as client:
        assert len(client.get("/v1/jobs").json()) == 1
    order(page, Seed=1)  # another order
    wait_for_pair(page)
    with visitor.client() as client:
        assert len(client.get("/v1/jobs").json()) == 2


def test_nothing_on_the_page_hinders_assistive_technology(visitor, visit):
    page = visit(visitor, reduced_motion="reduce")
    order(page, Pairs=2, Seed=11)
    wait_for_pair(page)
    page.get_by_label("Mask file").set_input_files({"name": "m.nii", "mimeType": "", "buffer": b"x"})
    page.get_by_label("Partial").check()
    page.locator("summary", has_text="Voxel size").click()
    assert hindrances(page) == []
    page.emulate_media(color_scheme="dark")
    assert hindrances(page) == []
    page.get_by_role("button", name="Forget token").click()
    page.get_by_role("textbox", name="Token").wait_for()
    assert hindrances(page) == []


def hindrances(page: Any) -> list[str]:
    """What axe-core finds, contrast included."""
    result = Axe().run(page)
    assert len(result.response["passes"]) > 15
    return [result.generate_report()] if result.violations_count else []


def test_every_control_is_reached_with_the_tabulator_and_shows_where_it_is(visitor, visit):
    page = visit(visitor)
    order(page, Pairs=2, Seed=12)
    wait_for_pair(page)
    shown(page, "Axial")
    there = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, summary")]
          .filter((control) => control.checkVisibility() && !control.disabled).length"""
    )
    page.evaluate("() => { document.activeElement.blur(); window.seen = new Set(); }")
    for _ in range(there + 5):
        page.keyboard.press("Tab")
        page.evaluate("() => window.seen.add(document.activeElement)")
    outlines = page.evaluate(
        """() => [...window.seen].filter((control) => control.matches("button, input, select, summary"))
          .map((control) => { control.focus(); return getComputedStyle(control).outlineWidth; })"""
    )
    assert len(outlines) == there > 20
    assert set(outlines) == {"3px"}


def test_nothing_is_cut_off_on_a_narrow_screen(visitor, visit):
    page = visit(visitor, has_touch=True)
    order(page, Pairs=1, Seed=13)
    wait_for_pair(page)
    order(page, Pairs=2, Seed=14)
    wait_for_pair(page)
    for width in (768, 390, 320):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == width
        for plane in ("Axial", "Coronal", "Sagittal"):
            box = page.get_by_role("img", name=plane).bounding_box()
            assert 0 <= box["x"] < box["x"] + box["width"] <= width
