from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from medgen3d.artifacts.report import (
    PICTURES,
    IntensityFigures,
    LabelComparison,
    LabelFigures,
    Report,
    SetDescription,
    Spread,
    as_html,
    read_report,
    write_report,
)
from medgen3d.core.errors import ArtifactError

PNGS = {name: b"\x89PNG " + name.encode() for name in PICTURES}
HOSTILE = "<script>alert('x')</script>&\""


def spread(mean, std=0.0):
    return Spread(mean=mean, std=std, min=mean, max=mean)


def label_figures(ml, components):
    return LabelFigures(
        num_cases_with=3, voxels=spread(1000 * ml), volume_ml=spread(ml, 0.25), components=spread(components)
    )


def make_report(phantom=False, name="knee", label="bone", floor=0.01):
    return Report(
        created=datetime(2020, 2, 3, 4, 5, tzinfo=UTC),
        code_version="1.2.3",
        spacing_mm=(3.0, 0.5, 0.5),
        real=SetDescription(name=name, num_cases=80, phantom=False, facts={}),
        synthetic=SetDescription(name=name, num_cases=40, phantom=phantom, facts={"Seed": HOSTILE}),
        labels=[
            LabelComparison(
                label_id=7,
                name=label,
                real=label_figures(2.0, 1.02),
                synthetic=label_figures(1.9, 1.15),
                volume_difference=-0.05,
            )
        ],
        intensity=IntensityFigures(distance=0.03, floor=floor, num_per_side=40, num_splits=20),
    )


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that tags are closed in order."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += " " + data


def test_the_page_loads_nothing_from_anywhere():
    page = as_html(make_report(), PNGS)

    assert "http://" not in page
    assert "https://" not in page
    assert "@import" not in page
    assert "url(" not in page
    tags = [tag for tag, _ in Page(page).tags]
    assert not {"script", "link", "iframe", "object", "video"} & set(tags)
    for tag, attributes in Page(page).tags:
        if tag == "img":
            assert attributes["src"].startswith("data:image/png;base64,")
            assert attributes["alt"]
        if tag == "a":
            assert attributes["href"].startswith("#")


def test_every_picture_is_in_the_page():
    assert [tag for tag, _ in Page(as_html(make_report(), PNGS)).tags].count("img") == len(PICTURES)


def test_links_lead_to_places_that_exist_and_no_id_occurs_twice():
    tags = Page(as_html(make_report(), PNGS)).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]

    assert len(ids) == len(set(ids))
    for _, attributes in tags:
        assert attributes.get("href", "#pictures").removeprefix("#") in ids
        assert attributes.get("aria-labelledby", "pictures") in ids


def test_whatever_is_wide_scrolls_by_itself_and_by_keyboard():
    tags = Page(as_html(make_report(), PNGS)).tags
    for _, attributes in tags:
        if "wide" in attributes.get("class", "").split():
            assert attributes["tabindex"] == "0"
            assert attributes["aria-label"]
    assert any(attributes.get("name") == "viewport" for _, attributes in tags)


def test_names_and_facts_cannot_smuggle_markup_into_the_page():
    page = as_html(make_report(name=HOSTILE, label=HOSTILE), PNGS)

    assert "<script" not in page
    assert Page(page).text.count("<script>alert('x')</script>&\"") >= 4  # title, headings, label, fact: as plain text


def test_a_dollar_in_a_name_is_only_a_dollar():
    assert "$distance" in Page(as_html(make_report(name="$distance"), PNGS)).text


def test_figures_stand_in_the_page():
    text = Page(as_html(make_report(), PNGS)).text

    assert "2.00 ± 0.25" in text
    assert "1.90 ± 0.25" in text
    assert "-5.0 %" in text
    assert "1.02" in text
    assert "1.15" in text
    assert "40 synthetic and 80 real cases, 2020-02-03 04:05 UTC" in text
    assert " 3 " in text  # the distance, 0.03, is three times the floor, 0.01
    assert "3 × 0.5 × 0.5 mm" in text


@pytest.mark.parametrize("phantom", [True, False])
def test_phantom_data_are_marked_so_and_others_are_not(phantom):
    assert ("PHANTOM DATA" in Page(as_html(make_report(phantom=phantom), PNGS)).text) is phantom


def test_without_a_floor_there_is_no_ratio():
    assert make_report(floor=None).intensity.ratio is None
    assert "–" in Page(as_html(make_report(floor=None), PNGS)).text


def test_the_files_read_back(tmp_path):
    report = make_report()
    write_report(tmp_path / "new" / "folder", report, PNGS)

    assert read_report(tmp_path / "new" / "folder") == report
    names = {path.name for path in (tmp_path / "new" / "folder").iterdir()}
    assert names == {"report.json", "report.html", *PICTURES}


def test_a_folder_without_a_report_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"report\.json: found no such file"):
        read_report(tmp_path)
