"""Malformed uploads: each is refused with one sentence, costs little memory, and leaves nothing behind."""

import gzip
import io
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from medgen3d.artifacts import nifti
from medgen3d.core.volume import Volume, affine_from_spacing

SHAPE = (4, 10, 12)  # D, H, W: 12 x 10 x 4 in the file
AXES = ("x", "y", "z")
NOT_FINITE = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}


def good(folder: Path, dtype: str = "uint16") -> bytes:
    """A mask that is accepted, uncompressed."""
    voxels = np.array([0, 7, 300])[np.arange(np.prod(SHAPE)).reshape(SHAPE) % 3].astype(dtype)
    path = folder / "good.nii.gz"
    nifti.write(path, Volume(voxels=voxels, affine=affine_from_spacing((3.0, 0.5, 0.75))))
    return gzip.decompress(path.read_bytes())


def put(content: bytes, at: int, form: str, *values: object) -> bytes:
    packed = struct.pack("<" + form, *values)
    return content[:at] + packed + content[at + len(packed) :]


def bad_headers(valid: bytes) -> Iterator[tuple[str, bytes]]:
    for magic in (b"ni1\0", b"n+2\0", b"n+3\0", b"\0\0\0\0", b"NIFT", b"\x89PNG"):
        yield f"magic {magic!r}", put(valid, 344, "4s", magic)
    for size in (0, -1, 347, 349, 540, 2**31 - 1, 1543569408):
        yield f"sizeof_hdr {size}", put(valid, 0, "i", size)
    for number in (-32768, -3, -1, 0, 1, 2, 4, 5, 6, 7, 8, 32767):
        yield f"{number} axes", put(valid, 40, "h", number)
    for more in ((2,), (1,), (100,), (2, 2), (1, 3), (1, 1, 2), (1, 1, 1, 32767)):
        yield f"{3 + len(more)}D {more}", put(valid, 40, f"4h{len(more)}h", 3 + len(more), 12, 10, 4, *more)
    yield "2 GB", put(valid, 42, "3h", 1290, 1290, 1290)
    yield "35 TB", put(valid, 42, "3h", 32767, 32767, 32767)
    yield "one slice too many", put(valid, 46, "h", 10)
    for code in (-1, 0, 1, 32, 128, 1536, 1792, 2048, 2304, 255, 9999):
        yield f"datatype {code}", put(valid, 70, "h", code)
    yield "complex64 with its size", put(valid, 70, "2h", 32, 64)
    yield "RGB with its size", put(valid, 70, "2h", 128, 24)
    for bits in (-16, 0, 1, 8, 32, 64):
        yield f"bitpix {bits}", put(valid, 72, "h", bits)


def bad_places(valid: bytes) -> Iterator[tuple[str, bytes]]:
    for axis, name in enumerate(AXES):
        for length in (0, -1, -32768, 32767, 1000, 25):
            yield f"{length} voxels along {name}", put(valid, 42 + 2 * axis, "h", length)
        for size in (-0.5, 0.0, 1e30, 0.9, *NOT_FINITE.values()):
            yield f"pixdim {size} along {name}", put(valid, 80 + 4 * axis, "f", size)
        for size in NOT_FINITE.values():
            yield f"srow {size} along {name}", put(valid, 280 + 16 * axis, "f", size)
        yield f"a flat srow {name}", put(valid, 280 + 16 * axis, "4f", 0, 0, 0, 0)
    yield "two rows alike", put(put(valid, 280, "4f", 1, 0, 0, 0), 296, "4f", 1, 0, 0, 0)
    yield "another spacing", put(put(valid, 80, "3f", 1, 1, 1), 280, "12f", *(1, 0, 0, 0), *(0, 1, 0, 0), *(0, 0, 1, 0))
    for offset in (0.0, 100.0, 347.0, -352.0, 1e9, 3e38, *NOT_FINITE.values()):
        yield f"vox_offset {offset}", put(valid, 108, "f", offset)
    for slope in (0.5, 2.0, -1.0, float("inf"), 1e38):
        yield f"scl_slope {slope}", put(valid, 112, "f", slope)
    for intercept in (1.0, 0.5, float("inf"), float("nan")):
        yield f"scl_inter {intercept}", put(put(valid, 112, "f", 1.0), 116, "f", intercept)


def bad_labels(folder: Path) -> Iterator[tuple[str, bytes]]:
    for dtype in ("float32", "float64"):
        valid = good(folder, dtype)
        form = {"float32": "f", "float64": "d"}[dtype]
        for label in (*NOT_FINITE.values(), 0.5, 7.001, -1.0, 1.0, 301.0, 1e30):
            yield f"label {label} as {dtype}", put(valid, 352, form, label)
    for dtype, form, labels in (
        ("uint16", "H", (1, 8, 299, 65535)),
        ("int16", "h", (-1, -7, 32767)),
        ("int32", "i", (-1, 2**31 - 1)),
        ("int64", "q", (-1, 2**63 - 1, 7 + 2**32)),
        ("uint32", "I", (2**32 - 1, 7 + 2**16)),
    ):
        for label in labels:
            yield f"label {label} as {dtype}", put(good(folder, dtype), 352, form, label)
    valid = good(folder)
    yield "nothing but background", valid[:352] + bytes(len(valid) - 352)


def bad_streams(valid: bytes) -> Iterator[tuple[str, bytes]]:
    packed = gzip.compress(valid, mtime=0)
    for length in (1, 2, 5, 10, 11, 18, 50, len(packed) // 2, len(packed) - 9, len(packed) - 8, len(packed) - 1):
        yield f"gzip cut to {length}", packed[:length]
    for place in (2, 3, 12, 30, len(packed) // 2, len(packed) - 8, len(packed) - 3):
        yield f"gzip broken at {place}", put(packed, place, "B", packed[place] ^ 0xFF)
    for length in (1, 4, 100, 347, 348, 351, 352, 400, len(valid) - 1):
        yield f"cut to {length}", valid[:length]
    yield "gzip of nothing", gzip.compress(b"")
    yield "gzip in gzip", gzip.compress(packed)
    yield "a bomb of zeros", bomb(b"")
    yield "a bomb behind a mask", bomb(valid)
    yield "a bomb behind a header that asks for it", bomb(put(valid, 42, "3h", 1000, 1000, 1000))
    yield "more than the header says", gzip.compress(valid + bytes(2**21))


def bomb(begin: bytes) -> bytes:
    """A quarter of a GiB in a quarter of a MiB."""
    packer = zlib.compressobj(1, wbits=31)
    parts = [packer.compress(begin)] + [packer.compress(bytes(2**20)) for _ in range(256)]
    return b"".join([*parts, packer.flush()])


def no_nifti() -> Iterator[tuple[str, bytes]]:
    yield "empty", b""
    yield "one byte", b"\0"
    yield "zeros", bytes(1000)
    yield "ones", b"\xff" * 1000
    for name, begin in {
        "PNG": b"\x89PNG\r\n\x1a\n",
        "zip": b"PK\x03\x04",
        "PDF": b"%PDF-1.7\n",
        "pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        "npy": b"\x93NUMPY\x01\x00",
        "HDF5": b"\x89HDF\r\n\x1a\n",
        "DICOM": bytes(128) + b"DICM",
        "text": b"a mask, please\n",
        "JSON": b'{"mask": true}',
        "HTML": b"<html></html>",
        "a path": b"../../../etc/passwd",
        "bzip2": b"BZh91AY&SY",
        "zstd": b"\x28\xb5\x2f\xfd",
    }.items():
        yield name, begin
        yield f"{name}, longer", begin + bytes(1000)
    for seed in range(15):
        noise = np.random.default_rng(seed).bytes(700)
        yield f"noise {seed}", noise
        yield f"packed noise {seed}", gzip.compress(noise)


def malformed(folder: Path) -> dict[str, bytes]:
    valid = good(folder)
    found = dict(bad_headers(valid)) | dict(bad_places(valid))
    found |= {f"{name}, packed": gzip.compress(content) for name, content in list(found.items())[::3]}
    return found | dict(bad_labels(folder)) | dict(bad_streams(valid)) | dict(no_nifti())


def check_refusal(answer, name: str, folder: Path) -> None:
    assert 400 <= answer.status_code < 500, f"{name}: {answer.status_code} {answer.text}"
    content = answer.json()
    assert set(content) == {"detail"}, name
    detail = content["detail"]
    assert detail, name
    assert len(detail) < 500, name
    for secret in ("\n", "Traceback", str(folder), ".py"):
        assert secret not in detail, f"{name}: {detail}"


@pytest.fixture(scope="module")
def server(make_server_process, tmp_path_factory):
    limits = {"request_burst": 10_000, "requests_per_minute": 10_000, "max_upload_bytes": 4 * 2**20}
    with make_server_process(tmp_path_factory.mktemp("uploads"), **limits) as running:
        yield running


def test_hundreds_of_malformed_uploads_are_refused_with_little_memory(server, tmp_path):
    uploads = malformed(tmp_path)
    assert len(uploads) >= 200
    with server.client() as client:
        warm = client.post("/v1/images", params={"pipeline": "knee"}, content=gzip.compress(good(tmp_path)))
        assert warm.status_code == 200
        jobs = len(client.get("/v1/jobs").json())
        before = server.peak_mib()
        for name, content in uploads.items():
            check_refusal(client.post("/v1/images", params={"pipeline": "knee"}, content=content), name, server.folder)
        assert server.peak_mib() - before < 48
        assert len(client.get("/v1/jobs").json()) == jobs
        assert client.post("/v1/images", params={"pipeline": "knee"}, content=good(tmp_path)).status_code == 200
    assert list((server.folder / "incoming").iterdir()) == []
    assert len(list((server.folder / "jobs").iterdir())) == 2


def send_fuzzed(server, content: bytes, fuzzed_header, seeds: range) -> dict[int, int]:
    """How often each status was the answer to a mask with a damaged header."""
    statuses: dict[int, int] = {}
    with server.client() as client:
        for seed in seeds:
            damaged = fuzzed_header(content[:352], seed) + content[352:]
            answer = client.post("/v1/images", params={"pipeline": "knee"}, content=damaged)
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            if answer.status_code != 200:
                check_refusal(answer, f"seed {seed}", server.folder)
    return statuses


def test_a_damaged_header_is_refused_or_means_the_same(server, tmp_path, fuzzed_header):
    statuses = send_fuzzed(server, good(tmp_path), fuzzed_header, range(60))
    assert set(statuses) == {200, 422}
    assert min(statuses.values()) > 5


@pytest.mark.soak
def test_thousands_of_damaged_headers_are_refused_or_mean_the_same(server, tmp_path, fuzzed_header):
    assert set(send_fuzzed(server, good(tmp_path), fuzzed_header, range(1000, 21000))) == {200, 422}


def test_masks_that_are_sound_are_accepted_in_every_type(server, tmp_path):
    with server.client() as client:
        for dtype in ("uint16", "int16", "int32", "int64", "uint32", "uint64", "float32", "float64"):
            answer = client.post("/v1/images", params={"pipeline": "knee"}, content=good(tmp_path, dtype))
            assert answer.status_code == 200, f"{dtype}: {answer.text}"
        big_endian = good(tmp_path)
        header = nifti_swapped(big_endian)
        assert client.post("/v1/images", params={"pipeline": "knee"}, content=header).status_code == 200


def nifti_swapped(content: bytes) -> bytes:
    """The same file, big-endian."""
    import nibabel as nib

    image = nib.Nifti1Image.from_bytes(content)
    swapped = nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header.as_byteswapped(">"))
    return swapped.to_bytes()


REQUEST = json.dumps({"pipeline": "knee", "mask_use": "full"})


@pytest.mark.parametrize(
    "name",
    ["../../../tmp/escaped", "/tmp/escaped.nii", "a/b/c.nii.gz", "..", "nul\0byte", "x" * 500, "é\u202e", "C:\\x.nii"],
)
def test_the_name_of_an_uploaded_file_is_never_used(server, tmp_path, name):
    before = sorted(path.name for path in server.folder.iterdir())
    with server.client() as client:
        files = {"request": (None, REQUEST), "mask": (name, good(tmp_path))}
        answer = client.post("/v1/jobs", files=files)
    assert answer.status_code in (202, 400)
    assert sorted(path.name for path in server.folder.iterdir()) == before
    assert not Path("/tmp/escaped").exists()
    assert not Path("/tmp/escaped.nii").exists()


def test_malformed_forms_are_refused(server, tmp_path):
    mask = ("m", good(tmp_path))
    part = (None, REQUEST)
    forms: dict[str, dict] = {
        "no request": {"files": {"mask": mask}},
        "no mask": {"files": {"request": part}},
        "request is no JSON": {"files": {"request": (None, "{"), "mask": mask}},
        "request is a list": {"files": {"request": (None, "[]"), "mask": mask}},
        "request twice": {"files": [("request", part), ("request", part), ("mask", mask)]},
        "mask twice": {"files": [("request", part), ("mask", mask), ("mask", mask)]},
        "mask as a field": {"files": {"request": part, "mask": (None, "text")}},
        "another part": {"files": {"request": part, "mask": mask, "more": ("x", b"y")}},
        "mask without use": {"files": {"request": (None, json.dumps({"pipeline": "knee"})), "mask": mask}},
        "depth beside mask": {
            "files": {"request": (None, json.dumps(json.loads(REQUEST) | {"depth": 4})), "mask": mask}
        },
        "known slice beyond": {
            "files": {
                "request": (None, json.dumps({"pipeline": "knee", "mask_use": "partial", "known_slices": [4]})),
                "mask": mask,
            }
        },
        "no boundary": {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
        "cut off": {"content": b"--b\r\nContent-Disp", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
        "XML": {"content": b"<x/>", "headers": {"Content-Type": "application/xml"}},
        "no type": {"content": b"{}"},
        "JSON that is none": {"content": b"\xff{", "headers": {"Content-Type": "application/json"}},
        "deep JSON": {"content": b"[" * 100_000, "headers": {"Content-Type": "application/json"}},
        "a large request": {"files": {"request": (None, " " * 2**21), "mask": mask}},
        "bad key": {"json": json.loads(REQUEST), "headers": {"Idempotency-Key": "a b"}},
        "long key": {"json": json.loads(REQUEST), "headers": {"Idempotency-Key": "a" * 201}},
    }
    with server.client() as client:
        for name, form in forms.items():
            check_refusal(client.post("/v1/jobs", **form), name, server.folder)


def test_a_file_that_is_read_slowly_or_in_pieces_is_the_same_file(server, tmp_path):
    content = gzip.compress(good(tmp_path))
    pieces = io.BytesIO(content)
    with server.client() as client:
        answer = client.post("/v1/images", params={"pipeline": "knee"}, content=iter(lambda: pieces.read(7), b""))
    assert answer.status_code == 200
