"""What the repository may hold: nothing that only one machine has, no data, and no weights but those that ship."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Home and work folders of a build machine, and a folder beside the repository, which CI alone may name. The letters in
# brackets keep this file from finding itself.
MACHINE_PATH = re.compile(r"(?<![\w.<-])/(wor[k]|roo[t])/|(?<![\w/])(\.\./)*share[d]/")
MAY_NAME_ITS_SURROUNDINGS = {".ci/run"}
SHIPPED = "platform/medgen3d/builtin/"
DATA = {".nii", ".gz", ".dcm", ".safetensors", ".parquet", ".pt", ".pth", ".pkl", ".npy", ".npz", ".db"}


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for path in listed.split("\0") if (ROOT / path).is_file()]


def test_no_file_names_a_path_of_one_machine() -> None:
    found = []
    for path in sorted(set(tracked()) - MAY_NAME_ITS_SURROUNDINGS):
        text = (ROOT / path).read_text(errors="ignore")
        found += [f"{path}:{text[: hit.start()].count(chr(10)) + 1} {hit[0]}" for hit in MACHINE_PATH.finditer(text)]
    assert found == []


def test_no_volume_table_or_weight_file_is_tracked() -> None:
    assert [path for path in tracked() if Path(path).suffix in DATA and not path.startswith(SHIPPED)] == []


def test_the_weights_that_ship_are_small_enough_to_be_cloned() -> None:
    weights = [ROOT / path for path in tracked() if path.startswith(SHIPPED) and path.endswith(".safetensors")]
    assert sum(path.stat().st_size for path in weights) <= 40e6
