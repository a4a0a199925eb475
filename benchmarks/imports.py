"""CPU seconds that a process takes to import MONAI as it is, and as `medgen3d_stages.monai_parts` imports it.

    python benchmarks/imports.py [--rounds 5]

Each is a process of its own that has imported torch before; they take turns.
"""

import argparse
import statistics
import subprocess
import sys

WAYS = {"import monai": "import monai", "medgen3d_stages.monai_parts": "import medgen3d_stages.monai_parts"}
CODE = "import time, torch; began = time.process_time(); {}; print(time.process_time() - began)"


def cpu_seconds(statement: str) -> float:
    """Of one import in a new process."""
    command = [sys.executable, "-W", "ignore", "-c", CODE.format(statement)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Print the median of each way and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = [{name: cpu_seconds(way) for name, way in WAYS.items()} for _ in range(parser.parse_args().rounds)]
    medians = {name: statistics.median(one[name] for one in rounds) for name in WAYS}
    for name, seconds in medians.items():
        print(f"| {name} | {seconds:.1f} |")
    whole, parts = medians.values()
    print(f"ratio {whole / parts:.1f}")


if __name__ == "__main__":
    main()
