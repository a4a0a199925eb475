"""Authenticity: whether a file says that it is synthetic, and whether it still holds what it was made with.

A file answers for itself by its mark. In a set the manifest answers for every file, and a signature for the manifest.
"""

import base64
import hashlib
import io
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as pq
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import BaseModel, ConfigDict, ValidationError

from medgen3d.artifacts import dicom_slices, nifti
from medgen3d.artifacts.case_status import CaseStatus
from medgen3d.artifacts.mark import Mark, content_hash, mark_in
from medgen3d.artifacts.nifti_stream import has_nifti_name
from medgen3d.artifacts.pair_files import MARK_KEY, decode_parquet, pair_folders, pair_names
from medgen3d.artifacts.storage import Folder
from medgen3d.artifacts.synthetic_set import MANIFEST, damages, read_manifest
from medgen3d.core.errors import ConfigError, FileError
from medgen3d.core.volume import Affine

SIGNATURE = "manifest.sig"
State = Literal["as made", "changed", "not ours", "unreadable"]
_MAX_KEY_BYTES = 10_000


class Finding(BaseModel):
    """The outcome for one file. note: What is wrong, or by whom it was signed."""

    model_config = ConfigDict(frozen=True)

    file: str
    state: State
    mark: Mark | None = None
    note: str = ""


class ManifestSignature(BaseModel):
    """`manifest.sig`: an Ed25519 signature (RFC 8032) of the bytes of `manifest.parquet`, all in base64."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = 1
    algorithm: Literal["Ed25519"] = "Ed25519"
    public_key: str
    signature: str


def verify(what: Sequence[str], trusted: Path | None = None) -> list[Finding]:
    """What is known of sets and files.

    Args:
        what: Folders or addresses of synthetic sets, and files.
        trusted: PEM file with the public key that manifests must be signed with.

    Raises:
        ArtifactError: A folder is no synthetic set, or its manifest is damaged.
        ConfigError: The key cannot be used.
    """
    findings = []
    for each in what:
        folder = Folder.of(each)
        if folder.is_a_file:
            findings.append(check_file(Path(each)))
        else:
            findings += [check_signature(folder, trusted), *check_set(folder)]
    return findings


def check_file(path: Path) -> Finding:
    """Whether a file carries a mark of ours, and holds what the mark says."""
    try:
        if has_nifti_name(path.name):
            file = nifti.read(path)
            sha256 = "" if file.mark is None else content_hash(file.volume.voxels)
            return _compared(path, file.mark, sha256, file.volume.affine)
        if path.suffix == ".parquet":
            mark = _parquet_mark(path)
            return _compared(path, mark, "" if mark is None else content_hash(*decode_parquet(path.read_bytes())))
        mark, sha256 = dicom_slices.marked_pixels(path)
        return _compared(path, mark, sha256)
    except (FileError, OSError, ValueError, TypeError, LookupError) as error:  # the last three: of a damaged pair
        return Finding(file=str(path), state="unreadable", note=" ".join(str(error).split()))


def check_set(folder: Folder) -> Iterator[Finding]:
    """Every file of a set's pairs against its manifest, and files beside them that are not in it.

    Raises:
        ArtifactError: The folder is no synthetic set, or its manifest is damaged.
    """
    info, rows = read_manifest(folder.location)
    origin = f"drawn by {info.pipeline_name} version {info.pipeline_version}, seed {info.seed}"
    yield Finding(file=f"{folder}/{MANIFEST}", state="as made", note=f"{origin}; {len(rows)} cases")
    listed = set()
    for row in sorted(rows.values(), key=lambda one: one.number):
        if row.status != CaseStatus.DONE:
            continue
        wrong = list(damages(folder.location, info, row))
        for half in dict.fromkeys(pair_names(info.format, row.case_id, row.shape[0])):
            listed |= set(half)
        yield Finding(
            file=f"{folder}, case {row.case_id}",
            state="changed" if wrong else "as made",
            note="; ".join(f"{error.args[1]}, expected {error.args[2]}" for error in wrong),
        )
    for name in (name for inside in pair_folders(info.format) for name in folder.files_below(inside)):
        if name not in listed:
            yield Finding(file=f"{folder}/{name}", state="not ours", note="the manifest does not list it")


def read_signing_key(path: Path) -> Ed25519PrivateKey:
    """The operator's private key, a PEM file that nobody else can read.

    Raises:
        ConfigError: It is missing, no Ed25519 key, needs a password, or others can read it.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        content = path.read_bytes() if path.stat().st_size <= _MAX_KEY_BYTES else b""
    except OSError as error:
        raise ConfigError(f"synthesis.signing_key: {path} cannot be read ({error.strerror})") from error
    if mode & 0o077:
        raise ConfigError(f"synthesis.signing_key: others can read {path} (mode {mode:o}); close it with chmod 600")
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(
            f"synthesis.signing_key: {path} holds no private Ed25519 key without a password; make one with "
            "openssl genpkey -algorithm ed25519"
        )
    return key


def sign_manifest(folder: Folder, key: Ed25519PrivateKey) -> None:
    """Write `manifest.sig` for the manifest as it is.

    Raises:
        OSError: The folder cannot be written.
    """
    made = ManifestSignature(
        public_key=_text_of(key.public_key()),
        signature=base64.b64encode(key.sign(folder.read(MANIFEST))).decode(),
    )
    folder.write(SIGNATURE, made.model_dump_json(indent=1).encode())


def check_signature(folder: Folder, trusted: Path | None) -> Finding:
    """Whether the manifest is what was signed, and by the key that is trusted.

    Args:
        folder: The set's.
        trusted: PEM file with a public key; None: the signature's own key is only named.

    Raises:
        ConfigError: The file holds no public Ed25519 key.
    """
    where = f"{folder}/{SIGNATURE}"
    expected = None if trusted is None else _text_of(_public_key(trusted))
    if not folder.exists(SIGNATURE):
        return Finding(
            file=where, state="as made" if trusted is None else "not ours", note="the manifest is not signed"
        )
    try:
        made = ManifestSignature.model_validate_json(folder.read(SIGNATURE))
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(made.public_key, validate=True))
        key.verify(base64.b64decode(made.signature, validate=True), folder.read(MANIFEST))
    except InvalidSignature:
        return Finding(file=where, state="changed", note="the manifest was changed since it was signed")
    except (ValidationError, ValueError, OSError) as error:
        return Finding(file=where, state="unreadable", note=f"no signature ({' '.join(str(error).split())[:200]})")
    by = f"signed by the key {fingerprint(made.public_key)}"
    if expected is not None and made.public_key != expected:
        return Finding(file=where, state="not ours", note=f"{by}, expected {fingerprint(expected)}")
    return Finding(
        file=where, state="as made", note=by if trusted else f"{by}; name yours with --public-key to compare"
    )


def fingerprint(public_key: str) -> str:
    """The first 16 hexadecimal digits of a key's SHA-256, by which people tell keys apart."""
    return hashlib.sha256(base64.b64decode(public_key)).hexdigest()[:16]


def _compared(path: Path, mark: Mark | None, sha256: str, affine: Affine | None = None) -> Finding:
    if mark is None:
        return Finding(file=str(path), state="not ours", note="it carries no mark of medgen3d")
    is_moved = mark.affine is not None and affine is not None and not _is_same_place(mark.affine, affine)
    if mark.sha256 != sha256 or is_moved:
        note = (
            "its voxels do not lie where they did" if mark.sha256 == sha256 else "its voxels are not as they were made"
        )
        return Finding(file=str(path), state="changed", mark=mark, note=note)
    return Finding(file=str(path), state="as made", mark=mark)


def _is_same_place(made: tuple[float, ...], found: Affine) -> bool:
    return len(made) == found[:3].size and np.allclose(made, found[:3].ravel(), rtol=1e-4, atol=1e-3)


def _parquet_mark(path: Path) -> Mark | None:
    try:
        metadata = pq.read_schema(io.BytesIO(path.read_bytes())).metadata or {}
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise FileError(str(path), f"no Parquet file ({error})", "a pair", "Restore the file.") from error
    return mark_in([metadata.get(MARK_KEY, b"").decode("utf-8", "replace")])


def _public_key(path: Path) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(path.read_bytes()[:_MAX_KEY_BYTES])
    except (OSError, ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(
            f"--public-key {path} holds no public Ed25519 key; make it of the private one with openssl pkey -pubout"
        )
    return key


def _text_of(key: Ed25519PublicKey) -> str:
    return base64.b64encode(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
