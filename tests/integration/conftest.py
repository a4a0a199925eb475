"""What integration tests share: small prepared heads, real cases that pass for drawn ones, a PostgreSQL server."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import psutil
import psycopg
import pytest

from medgen3d.artifacts.bundle import BundleDataset
from medgen3d.artifacts.manifest import SyntheticSetInfo
from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.synthetic_set import merge_parts, open_for_writing, write_case, write_part
from medgen3d.config.load import load_config
from medgen3d.core.volume import Volume, affine_from_spacing
from medgen3d.ingest.on_ray import ingest
from medgen3d.ingest.phantom import write_phantoms


@pytest.fixture(scope="session")
def prepared_heads(ray_cluster, tmp_path_factory) -> PreparedSet:
    """Twelve phantoms of 8 x 16 x 16 voxels."""
    root = tmp_path_factory.mktemp("heads")
    write_phantoms("brain_mr", 12, 0, root / "phantoms", size=(8, 16, 16))
    ingest(root / "phantoms", root / "prepared", load_config(presets=["smoke"]).ingest, seed=0, name="heads")
    return PreparedSet(root / "prepared")


@pytest.fixture(scope="session")
def ray_processes() -> Callable[[str], list[psutil.Process]]:
    """ray_processes(title): living workers of this test's Ray with this in their title; others run Ray here as well."""

    def find(title: str) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # it ended meanwhile, or is somebody else's
                command = " ".join(process.cmdline())
                is_ours = process.environ().get("RAY_TMPDIR") == os.environ["RAY_TMPDIR"]
                if command.startswith("ray::") and title in command and is_ours:
                    found.append(process)
        return found

    return find


@pytest.fixture(scope="session")
def copy_as_pairs() -> Callable[[PreparedSet, Sequence[str], Path], None]:
    """copy_as_pairs(prepared, case_ids, out): cases as a synthetic set, as if a generator had drawn them elsewhere."""
    return _copy_as_pairs


def _copy_as_pairs(prepared: PreparedSet, case_ids: Sequence[str], out: Path) -> None:
    common = BundleDataset.of(prepared).model_dump(
        include={"modality", "phantom", "labels", "spacing_mm", "axis_codes", "image_dtype"}
    )
    info = SyntheticSetInfo(
        dataset_name="heads",
        dataset_digest=prepared.digest,
        pipeline_name="heads",
        pipeline_version=7,
        seed=1,
        config_hash="c" * 64,
        weights_sha256={"refiner": "f" * 64},
        batch=1,
        threads=1,
        device="cpu",
        **common,
    )
    open_for_writing(out, info)
    rows = []
    for number, case_id in enumerate(case_ids):
        case = prepared.read(case_id)
        inside = (slice(None), case.box.rows, case.box.columns)
        affine = affine_from_spacing(info.spacing_mm)
        image = Volume(voxels=case.intensity.from_unit(case.image[inside]), affine=affine)
        mask = Volume(voxels=info.label_table.to_original(case.mask[inside]), affine=affine)
        rows.append(write_case(out, info, case_id=f"syn_{number:05d}", number=number, image=image, mask=mask))
    write_part(out, info, 0, rows)
    merge_parts(out)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[], str]]:
    """postgres(): the address of a new, empty schema on a real PostgreSQL server on a free port."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL's server is not installed: on Debian it is the package `postgresql`")
    with _running_postgres(found[-1].parent) as port:
        numbers = count()

        server = f"medgen3d@127.0.0.1:{port}/postgres"

        def new_schema() -> str:
            name = f"jobs{next(numbers)}"
            with psycopg.connect(f"postgresql://{server}") as connection:
                connection.execute(f"CREATE SCHEMA {name}")
            return f"postgresql+psycopg://{server}?options=-csearch_path%3D{name}"

        yield new_schema


@contextmanager
def _running_postgres(binaries: Path) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    root = Path(tempfile.mkdtemp(prefix="mg3d-pg-", dir="/tmp"))
    as_user: dict[str, object] = {}
    if os.geteuid() == 0:  # the server refuses to run as root
        postgres = pwd.getpwnam("postgres")
        os.chown(root, postgres.pw_uid, postgres.pw_gid)
        as_user = {"user": postgres.pw_uid, "group": postgres.pw_gid, "extra_groups": []}

    def run(*command: object) -> None:
        words = [str(binaries / str(command[0])), *map(str, command[1:])]
        subprocess.run(words, check=True, capture_output=True, cwd=root, **as_user)  # type: ignore[call-overload]

    try:
        run("initdb", "-D", root / "data", "-U", "medgen3d", "--auth=trust", "--no-sync", "--encoding=UTF8")
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {root} -c fsync=off"
        run("pg_ctl", "-D", root / "data", "-l", root / "log", "-w", "-o", options, "start")
        try:
            yield port
        finally:
            run("pg_ctl", "-D", root / "data", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(root, ignore_errors=True)
