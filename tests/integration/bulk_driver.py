"""Draws a set in a process of its own, so that tests can kill it: `python bulk_driver.py ARGUMENTS`, as JSON."""

import importlib.util
import json
import os
import sys
from pathlib import Path

import ray

from medgen3d.config.experiment import SynthesisConfig
from medgen3d.core.errors import Medgen3dError
from medgen3d.core.seeds import stream_seed
from medgen3d.synthesis.on_ray import synthesize
from medgen3d.synthesis.order import Order

SEED = 11


class Poison:
    """In a worker: once it can draw at all, a certain case kills the process that draws its image."""

    def find_spec(self, name, path, target=None):  # type: ignore[no-untyped-def]
        if name != "medgen3d.synthesis.worker":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def poisoned(module):  # type: ignore[no-untyped-def]
            execute(module)
            make_deadly(module)

        spec.loader.exec_module = poisoned
        return spec


def make_deadly(worker) -> None:  # type: ignore[no-untyped-def]
    deadly = stream_seed(SEED, "case", int(os.environ["POISONED_CASE"]), "image_sequence_generator", 0)
    draw_images = worker.draw_images

    def draw(trained, masks, seeds, styles):  # type: ignore[no-untyped-def]
        if deadly in seeds:
            os._exit(1)
        return draw_images(trained, masks, seeds, styles)

    worker.draw_images = draw


def poison() -> None:
    """What every worker begins with; workers that never draw need no torch for it."""
    sys.meta_path.insert(0, Poison())


def main() -> int:
    given = json.loads(sys.argv[1])
    environment = {}
    if "poisoned" in given:
        environment = {"worker_process_setup_hook": poison, "env_vars": {"POISONED_CASE": str(given["poisoned"])}}
    ray.init(address=given["address"], log_to_driver=False, runtime_env=environment)
    Path(given["node"]).write_text(ray.get_runtime_context().get_node_id())
    config = SynthesisConfig(batch=2, cpus_per_actor=0.25, gates=False)
    order = Order(options=given["options"], command="the same again")
    bundles = {stage: Path(root) for stage, root in given["bundles"].items()}
    try:
        synthesize(bundles, "knee", 3, given["count"], SEED, given["out"], config, order=order)
    except Medgen3dError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
