"""The page's files and how they are served."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

import medgen3d.serving
from medgen3d.serving.api import page

FILES = sorted(path for path in (Path(medgen3d.serving.__file__).parent / "web").iterdir())
INDEX = next(path.read_text() for path in FILES if path.name == "index.html")
SCRIPTS = {path.name: path.read_text() for path in FILES if path.suffix == ".js"}


@pytest.fixture(scope="module")
def get() -> Callable[[str], httpx.Response]:
    """get(path): the answer of an app that has nothing but the page."""
    app = FastAPI()
    app.include_router(page.router)

    async def answer(path: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://page") as client:
            return await client.get(path)

    return lambda path: asyncio.run(answer(path))


def test_the_page_is_at_the_root_and_lets_the_browser_run_its_own_files_only(get):
    answer = get("/")
    assert answer.text == INDEX
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy.pop("require-trusted-types-for") == "'script'"
    assert policy["default-src"] == "'none'"
    assert set(policy.values()) == {"'self'", "'none'"}
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("app.js", "text/javascript; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ],
)
def test_a_file_has_the_type_that_browsers_insist_on(get, name, media_type):
    answer = get(f"/page/{name}")
    assert answer.content == next(path.read_bytes() for path in FILES if path.name == name)
    assert answer.headers["content-type"] == media_type


@pytest.mark.parametrize("name", ["absent.js", "..%2fpage.py", "%2e%2e/page.py", "../schemas.py", "index.html"])
def test_nothing_but_the_files_of_the_page_is_served(get, name):
    assert get(f"/page/{name}").status_code == 404


def test_every_file_that_another_one_names_is_there():
    named = set(re.findall(r'(?:src|href)="page/([^"]+)"', INDEX)) | {"index.html"}
    named |= {name for script in SCRIPTS.values() for name in re.findall(r'from "\./([^"]+)"', script)}
    assert named == {path.name for path in FILES}


def test_every_element_that_a_module_asks_for_is_on_the_page():
    asked = {name for script in SCRIPTS.values() for name in re.findall(r'byId\("([^"]+)"\)', script)}
    assert len(asked) > 30
    assert asked <= set(re.findall(r'id="([^"]+)"', INDEX))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_asks_anybody_else_or_holds_code_within_markup(path):
    text = path.read_text()
    assert [hit for hit in re.findall(r"https?://[^\s\"']+", text) if hit != "http://www.w3.org/2000/svg"] == []
    assert not re.search(r"<script(?![^>]*\ssrc=)|\son\w+=|\sstyle=|innerHTML|insertAdjacentHTML|\beval\(", text)


def test_no_module_puts_the_token_anywhere_but_in_the_tab_and_a_header():
    assert [name for name, text in SCRIPTS.items() if "localStorage" in text or "document.cookie" in text] == []
    using = {name for name, text in SCRIPTS.items() if "token.get()" in text}
    assert using == {"app.js", "service.js"}
    assert re.findall(r"token\.get\(\)[^;]*", SCRIPTS["app.js"]) == ['token.get()) return askForToken("")']
