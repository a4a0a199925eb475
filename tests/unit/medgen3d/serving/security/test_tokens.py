import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from medgen3d.core.errors import ArtifactError, ConfigError
from medgen3d.serving.security.tokens import TokenFile, TokenStore, create_token, list_tokens, revoke_token


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "tokens.json"


def test_a_token_admits_its_owner_with_its_scopes(path):
    token, entry = create_token(path, "anna", ("admin", "synthesize"))
    caller = TokenStore(path).caller(token)
    assert (caller.owner, caller.token_id, caller.scopes) == ("anna", entry.id, ("synthesize", "admin"))


def test_the_file_holds_no_token_and_only_its_owner_can_read_it(path):
    token, _ = create_token(path, "anna")
    assert token not in path.read_text()
    assert len(token) == len("mg3d_") + 43  # 32 bytes in base64
    assert path.stat().st_mode & 0o777 == 0o600


def test_two_tokens_are_never_alike(path):
    assert len({create_token(path, "anna")[0] for _ in range(20)}) == 20


@pytest.mark.parametrize("wrong", ["", "mg3d_", "x", "mg3d_" + "A" * 43, "é", "\udcff", "a" * 100_000])
def test_a_wrong_token_admits_nobody(path, wrong):
    create_token(path, "anna")
    assert TokenStore(path).caller(wrong) is None


def test_a_hash_is_not_a_token(path):
    _, entry = create_token(path, "anna")
    assert TokenStore(path).caller(entry.sha256) is None


def test_a_token_expires(path):
    token, entry = create_token(path, "anna", valid_days=1)
    assert entry.expires - entry.created == timedelta(days=1)
    tokens = TokenStore(path)
    assert tokens.caller(token) is not None
    past = entry.model_copy(update={"expires": datetime.now(UTC) - timedelta(seconds=1)})
    path.write_text(TokenFile(tokens=[past]).model_dump_json())
    assert tokens.caller(token) is None


def test_a_change_of_the_file_counts_at_once(path):
    tokens = TokenStore(path)
    assert tokens.caller("x") is None  # no file yet
    first, entry = create_token(path, "anna")
    assert tokens.caller(first).owner == "anna"
    second, _ = create_token(path, "anna")
    assert tokens.caller(second).owner == "anna"
    revoke_token(path, entry.id)
    assert tokens.caller(first) is None
    assert tokens.caller(second).owner == "anna"
    path.unlink()
    assert tokens.caller(second) is None


def test_a_damaged_file_admits_nobody_and_is_not_overwritten(path):
    token, _ = create_token(path, "anna")
    tokens = TokenStore(path)
    path.write_text('{"schema_version": 1, "tokens": [{}]}')
    os.utime(path)
    assert tokens.caller(token) is None
    with pytest.raises(ArtifactError, match=r"tokens\.json"):
        create_token(path, "ben")


def test_tokens_are_listed_and_an_unknown_one_is_not_revoked(path):
    assert list_tokens(path) == []
    _, entry = create_token(path, "anna")
    assert list_tokens(path) == [entry]
    with pytest.raises(ConfigError, match=f"there are {entry.id}"):
        revoke_token(path, "nobody")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"owner": "a b"}, "1 to 64 letters"),
        ({"owner": ""}, "1 to 64 letters"),
        ({"owner": "../x"}, "1 to 64 letters"),
        ({"scopes": ("root",)}, "scopes are synthesize, admin, got root"),
        ({"scopes": ()}, "got none"),
        ({"valid_days": 0}, "positive number of days"),
        ({"valid_days": float("nan")}, "positive number of days"),
    ],
)
def test_what_makes_no_sense_is_refused(path, changes, words):
    with pytest.raises(ConfigError, match=words):
        create_token(path, **{"owner": "anna"} | changes)
    assert not path.exists()


def test_what_is_written_has_a_version_that_is_checked(path):
    create_token(path, "anna")
    content = json.loads(path.read_text())
    assert content["schema_version"] == 1
    path.write_text(json.dumps(content | {"schema_version": 2}))
    with pytest.raises(ArtifactError, match="schema version 2"):
        list_tokens(path)
