"""Bearer tokens of the callers, kept as hashes in a file that is read again whenever it changes.

A token is 32 random bytes, so its hash is plain SHA-256: there is no dictionary to try and nothing that a salt or a
slow hash would make harder, while a slow hash would let anybody keep the service busy with wrong tokens.
"""

import hashlib
import hmac
import logging
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from medgen3d.artifacts.versioned_json import read_versioned, write_versioned
from medgen3d.core.errors import ArtifactError, ConfigError
from medgen3d.serving.files import make_private_folder

Scope = Literal["synthesize", "admin"]
"""synthesize: make jobs and see one's own. admin: also see and cancel everybody's, and read the metrics."""
SCOPES: tuple[Scope, ...] = ("synthesize", "admin")
TOKENS = "tokens.json"
"""Name of the file in the service's folder."""
PREFIX = "mg3d_"
_OWNER = r"^[A-Za-z0-9_.@-]{1,64}$"
_REMEDY = "Restore it, or delete it and make new tokens with `medgen3d tokens create`."
_log = logging.getLogger(__name__)


class TokenEntry(BaseModel):
    """One token, without the token.

    id: By which it is revoked.
    owner: To whom jobs belong; during a rotation an owner has two tokens.
    sha256: Of the token.
    expires: None: never.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    owner: Annotated[str, Field(pattern=_OWNER)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: list[Scope]
    created: AwareDatetime
    expires: AwareDatetime | None = None


class TokenFile(BaseModel):
    """`tokens.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = 1
    tokens: list[TokenEntry] = []


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Who asks."""

    owner: str
    token_id: str
    scopes: tuple[Scope, ...]

    @property
    def sees(self) -> str | None:
        """Whose jobs the caller sees; None: everybody's."""
        return None if "admin" in self.scopes else self.owner


class TokenStore:
    """The tokens that are valid now. A missing or damaged file admits nobody."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._seen: tuple[int, int, int] | None = None
        self._entries: list[TokenEntry] = []

    def caller(self, token: str) -> Caller | None:
        """Whose token this is; None if it is not known or has expired.

        Every known hash is compared, each in constant time, so that the time of an answer tells nothing.
        """
        presented = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        for entry in self._current():
            if hmac.compare_digest(entry.sha256, presented):
                found = entry
        if found is None or (found.expires is not None and found.expires <= datetime.now(UTC)):
            return None
        return Caller(owner=found.owner, token_id=found.id, scopes=tuple(found.scopes))

    def problem(self) -> str:
        """Why nobody is admitted; empty if somebody is."""
        if self._current():
            return ""
        return f"{self.path.name} holds no valid token; make one with `medgen3d tokens create`"

    def _current(self) -> list[TokenEntry]:
        try:
            found = self.path.stat()
            seen = (found.st_mtime_ns, found.st_size, found.st_ino)
        except OSError:
            self._seen, self._entries = None, []
            return self._entries
        if seen != self._seen:
            try:
                self._entries = read_versioned(self.path, TokenFile, _REMEDY).tokens
            except ArtifactError as error:
                _log.error("Nobody is admitted: %s", error)
                self._entries = []
            self._seen = seen
        return self._entries


def create_token(
    path: Path, owner: str, scopes: Sequence[str] = ("synthesize",), valid_days: float | None = None
) -> tuple[str, TokenEntry]:
    """Add a token for an owner, who may have others; the file is made if it is missing.

    Returns:
        The token, which is kept nowhere, and its entry.

    Raises:
        ConfigError: A name or scope that is not allowed, or days that are not positive.
        ArtifactError: The file is damaged.
    """
    if not re.fullmatch(_OWNER, owner):
        raise ConfigError(f"an owner's name has 1 to 64 letters, digits or _.@-, got {owner!r}")
    if not scopes or not set(scopes) <= set(SCOPES):
        raise ConfigError(f"scopes are {', '.join(SCOPES)}, got {', '.join(scopes) or 'none'}")
    if valid_days is not None and not 0 < valid_days < 36500:
        raise ConfigError(f"a token is valid for a positive number of days, at most 36500, got {valid_days}")
    token = PREFIX + secrets.token_urlsafe(32)
    now = datetime.now(UTC).replace(microsecond=0)
    entry = TokenEntry(
        id=secrets.token_hex(4),
        owner=owner,
        sha256=hashlib.sha256(token.encode()).hexdigest(),
        scopes=[scope for scope in SCOPES if scope in scopes],
        created=now,
        expires=None if valid_days is None else now + timedelta(days=valid_days),
    )
    _write(path, [*list_tokens(path), entry])
    return token, entry


def list_tokens(path: Path) -> list[TokenEntry]:
    """All tokens, expired ones too; none if there is no file.

    Raises:
        ArtifactError: The file is damaged.
    """
    return list(read_versioned(path, TokenFile, _REMEDY).tokens) if Path(path).exists() else []


def revoke_token(path: Path, token_id: str) -> TokenEntry:
    """Remove a token; a running service refuses it from its next request on.

    Raises:
        ConfigError: There is no such token.
    """
    entries = list_tokens(path)
    gone = [entry for entry in entries if entry.id == token_id]
    if not gone:
        known = ", ".join(entry.id for entry in entries) or "none"
        raise ConfigError(f"there is no token {token_id!r}; there are {known}")
    _write(path, [entry for entry in entries if entry.id != token_id])
    return gone[0]


def _write(path: Path, entries: list[TokenEntry]) -> None:
    """Replace the file; only its owner may read it from the first byte on."""
    path = Path(path)
    before = os.umask(0o077)
    try:
        make_private_folder(path.parent)
        write_versioned(path, TokenFile(tokens=entries))
    finally:
        os.umask(before)
