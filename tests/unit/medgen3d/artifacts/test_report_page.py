"""The page: whatever is in a report is on it, in order, escaped, and reachable without eyes, colours or a mouse."""

import io
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from PIL import Image

from medgen3d.artifacts.report import EvaluatedPipeline, Report, SetDescription, Verdict
from medgen3d.artifacts.report_page import as_html, number
from medgen3d.artifacts.report_parts import Metric, Picture, ReportSection, Table

HOSTILE = "<script>alert('x')</script>&\""


def png():
    file = io.BytesIO()
    Image.new("RGB", (300, 200)).save(file, format="PNG")
    return file.getvalue()


def make_report(
    name="knee", title="Fidelity", goal="FID: at most 2.5", label="bone", note="Two needed.", fact="7", phantom=False
):
    metrics = [
        Metric(name="fidelity.fid", title=f"FID {label}", value=0.03, floor=0.01, interval=(0.025, 0.0375), num=40),
        Metric(name="fidelity.ms_ssim", title="MS-SSIM", value=None, num=1, unit="mm", note=note),
    ]
    table = Table(title="Per label", columns=["Label", "Volume"], rows=[[label, 1234.4], ["rest", None]], note=note)
    picture = Picture(file="plot.png", caption=f"Plot of {label}", alt=f"Lines of {label}")
    sections = [
        ReportSection(name="fidelity", title=title, about=note, metrics=metrics, tables=[table], pictures=[picture]),
        ReportSection(name="usefulness", title="Usefulness", about="", not_run=f"Give `--{label}`."),
    ]
    outcomes = {"fidelity.fid": True, "agreement.dice_gap": False, "novelty.*": None}
    return Report(
        created=datetime(2020, 2, 3, 4, 5, tzinfo=UTC),
        code_version="1.2.3",
        spacing_mm=(3.0, 0.5, 0.5),
        real=SetDescription(name=name, num_cases=80, phantom=False, facts={}),
        synthetic=SetDescription(name="pairs", num_cases=40, phantom=phantom, facts={"Seed": fact}),
        train=SetDescription(name="training set", num_cases=140, phantom=False, facts={}),
        pipeline=EvaluatedPipeline(name="knee", version=4, weights_sha256={}, config_hash="c", dataset_digest="d"),
        verdicts=[
            Verdict(metric=metric, goal=goal, value=0.03, floor=0.01, ratio=3.0, passed=passed)
            for metric, passed in outcomes.items()
        ],
        sections=sections,
    )


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that tags are closed in order."""

    def __init__(self, **changes):
        super().__init__()
        self.source = as_html(make_report(**changes), {"plot.png": png()})
        self.tags, self.open, self.text = [], [], ""
        self.feed(self.source)
        self.text = " ".join(self.text.split())
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += " " + data


@pytest.fixture(scope="module")
def page() -> Page:
    return Page()


def test_the_page_loads_nothing_from_anywhere(page):
    for word in ("http://", "https://", "@import", "url("):
        assert word not in page.source
    assert not {"script", "link", "iframe", "object", "video"} & {tag for tag, _ in page.tags}
    assert "default-src 'none'" in page.source
    for tag, attributes in page.tags:
        if tag == "img":
            assert attributes["src"].startswith("data:image/png;base64,")
            assert attributes["alt"]
        if tag == "a":
            assert attributes["href"].startswith("#")


def test_verdicts_come_first_then_the_contents_then_the_sections_with_their_pictures(page):
    places = [
        page.source.index(part) for part in ("agreement.dice_gap", "<nav", 'id="fidelity"', "<img", 'id="usefulness"')
    ]
    assert places == sorted(places)


def test_a_verdict_is_told_in_words_and_not_by_colour_alone(page):
    for words in ("✓ pass", "✗ fail", "– not measured"):
        assert page.text.count(words) == 1
    assert "Goals met 1 of 3" in page.text
    assert "Goals missed 1 of 3" in page.text
    assert "Not measured 1 of 3" in page.text


def test_a_metric_stands_with_interval_floor_ratio_and_number_of_cases(page):
    assert "FID bone 0.03 0.025 to 0.0375 0.01 3 40 cases per side" in page.text
    assert "MS-SSIM [mm] Two needed. – – – – 1 cases per side" in page.text


def test_tables_notes_and_captions_are_on_the_page(page):
    assert "Per label Two needed. Label Volume bone 1,234 rest –" in page.text
    assert "Plot of bone" in page.text
    assert "Not run. Give --bone ." in page.text
    assert "<code>--bone</code>" in page.source


def test_the_contents_lead_to_every_section(page):
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links == ["#fidelity", "#usefulness", "#provenance"]


def test_links_and_labels_lead_to_places_that_exist_and_no_id_occurs_twice(page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        assert attributes.get("href", "#verdicts").removeprefix("#") in ids
        assert attributes.get("aria-labelledby", "verdicts") in ids


def test_whatever_is_wide_scrolls_by_itself_and_by_keyboard(page):
    wide = [attributes for _, attributes in page.tags if attributes.get("class") == "wide"]
    assert len(wide) == 4  # verdicts, metrics, table, picture
    assert all(attributes["tabindex"] == "0" and attributes["aria-label"] for attributes in wide)
    assert any(attributes.get("name") == "viewport" for _, attributes in page.tags)


def test_a_picture_keeps_its_place_free(page):
    (image,) = [attributes for tag, attributes in page.tags if tag == "img"]
    assert (image["width"], image["height"]) == ("300", "200")


def test_every_heading_cell_says_what_it_is_the_heading_of(page):
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in page.tags if tag == "th")


def test_no_text_of_the_data_can_smuggle_markup_into_the_page():
    page = Page(name=HOSTILE, title=HOSTILE, goal=HOSTILE, label=HOSTILE, note=HOSTILE, fact=HOSTILE)
    assert "<script" not in page.source
    assert page.text.count(HOSTILE) == 16  # as plain text, in every place where one stands


def test_what_would_be_an_instruction_to_the_template_is_only_text_in_a_name():
    assert "{{ report.code_version }}{% if %}" in Page(name="{{ report.code_version }}{% if %}").text


def test_all_sets_are_described_with_the_pipeline_and_the_voxels(page):
    assert "40 synthetic cases of knee version 4 and 80 real cases, 2020-02-03 04:05 UTC" in page.text
    assert "training set" in page.text
    assert "3 × 0.5 × 0.5 mm" in page.text


@pytest.mark.parametrize("phantom", [True, False])
def test_phantom_data_are_marked_so_and_others_are_not(phantom):
    assert ("PHANTOM DATA" in Page(phantom=phantom).text) is phantom


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "–"), (0.0, "0"), (0.034567, "0.0346"), (12.34, "12.3"), (123456.0, "123,456")]
)
def test_numbers_have_three_digits_and_no_exponent(value, shown):
    assert number(value) == shown
