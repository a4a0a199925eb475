"""Names that say one thing: classes, the first words of modules, the tree of docs/architecture.md, sizes of files."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path for root in ("platform/medgen3d", "stages/medgen3d_stages") for path in (ROOT / root).rglob("*.py")
)
TREE = re.search(r"## The tree\n.*?```\n(.*?)```", (ROOT / "docs/architecture.md").read_text(), re.DOTALL)
MOST_LINES = 300
QUESTION = re.compile(r"(what|where|which|whether|how|who|whose|when|why)\b", re.IGNORECASE)


def room(path: Path) -> str:
    """The folder in which a module lies, such as `medgen3d/serving/queue`."""
    return str(path.relative_to(ROOT).parent).partition("/")[2]


def public_classes(sources: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """{name: where it is defined} of (where, source)."""
    found = defaultdict(list)
    for where, source in sources:
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(where)
    return found


def ambiguous(sources: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    return {name: places for name, places in public_classes(sources).items() if len(places) > 1}


def test_a_public_class_name_means_one_thing() -> None:
    assert ambiguous((room(path), path.read_text()) for path in SOURCES) == {}


def test_a_class_name_in_two_rooms_would_be_noticed() -> None:
    sources = [("medgen3d/ingest", "class Order: ..."), ("medgen3d/serving", "class Order: ...\nclass _Row: ...")]
    assert ambiguous([*sources, ("medgen3d/core", "class _Row: ...")]) == {
        "Order": ["medgen3d/ingest", "medgen3d/serving"]
    }


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{room(path)}/{path.name}")
def test_a_module_says_what_it_is_and_is_short(path: Path) -> None:
    source = path.read_text()
    docstring = ast.get_docstring(ast.parse(source)) or ""
    assert docstring, "it has no docstring"
    assert not QUESTION.match(docstring), f"it begins with a question word: {docstring.splitlines()[0]}"
    assert len(source.splitlines()) <= MOST_LINES


# The tree

ENTRY = re.compile(r"^((?:  ){0,3})([\w./]+)(?:  .*)?$", re.MULTILINE)


def listed(tree: str) -> dict[str, set[str]]:
    """{folder: the names that stand below it in the tree}; two spaces of indentation are one step down."""
    found: dict[str, set[str]] = {}
    parents: list[str] = []
    for indentation, name in ENTRY.findall(tree):
        depth = len(indentation) // 2
        parents[depth:] = [name.rstrip("/")]
        found.setdefault("/".join(parents[:depth]), set()).add(name)
    return found


def there(folder: str) -> set[str]:
    """Rooms, with a slash, and modules of a folder."""
    paths = [path for path in (ROOT / folder).iterdir() if path.name not in ("__pycache__", "__init__.py")]
    return {f"{path.name}/" for path in paths if path.is_dir()} | {path.name for path in paths if path.suffix == ".py"}


@pytest.mark.parametrize("folder", ["platform/medgen3d", "platform/medgen3d/serving", "stages/medgen3d_stages"])
def test_the_tree_of_the_architecture_page_lists_what_is_in_a_folder_and_nothing_else(folder: str) -> None:
    assert TREE
    assert listed(TREE[1])[folder] == there(folder)


def test_a_tree_is_read_by_its_indentation() -> None:
    tree = "platform/medgen3d/\n  serving/   pairs\n              over HTTP\n    queue/     jobs\n  client.py    HTTP\n"
    assert listed(tree) == {
        "": {"platform/medgen3d/"},
        "platform/medgen3d": {"serving/", "client.py"},
        "platform/medgen3d/serving": {"queue/"},
    }
