"""Draws a set in a process of its own, so that tests can kill it: `python bulk_driver.py ARGUMENTS`, as JSON."""

import importlib.util
import json
import os
import sys
import time
from pathlib import Path

import ray

from medgen3d.artifacts.pipeline import Pipeline
from medgen3d.config.experiment import SynthesisConfig
from medgen3d.core.errors import Medgen3dError
from medgen3d.core.seeds import stream_seed
from medgen3d.synthesis.on_ray import synthesize
from medgen3d.synthesis.run_options import RunOptions

SEED = 11


class Changed:
    """In a worker: a module of the product, changed as soon as it is loaded."""

    def __init__(self, name, change):  # type: ignore[no-untyped-def]
        self.name, self.change = name, change

    def find_spec(self, name, path, target=None):  # type: ignore[no-untyped-def]
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def changed(module):  # type: ignore[no-untyped-def]
            execute(module)
            self.change(module)

        spec.loader.exec_module = changed
        return spec


def make_deadly(drawing) -> None:  # type: ignore[no-untyped-def]
    """A certain case kills the process that draws its image."""
    deadly = stream_seed(SEED, "case", int(os.environ["POISONED_CASE"]), "image_sequence_generator", 0)
    draw_images = drawing.draw_images

    def draw(trained, masks, seeds, styles):  # type: ignore[no-untyped-def]
        if deadly in seeds:
            os._exit(1)
        return draw_images(trained, masks, seeds, styles)

    drawing.draw_images = draw


def make_slow(set_writer) -> None:  # type: ignore[no-untyped-def]
    """Every batch takes long to write."""
    write_batch = set_writer.write_batch

    def write(*arguments):  # type: ignore[no-untyped-def]
        time.sleep(float(os.environ["WRITE_S"]))
        return write_batch(*arguments)

    set_writer.write_batch = write


def poison() -> None:
    """Every worker begins with this."""
    sys.meta_path.insert(0, Changed("medgen3d.synthesis.drawing", make_deadly))


def slow_down() -> None:
    """Every worker begins with this."""
    sys.meta_path.insert(0, Changed("medgen3d.synthesis.set_writer", make_slow))


def main() -> int:
    given = json.loads(sys.argv[1])
    environment = {}
    if "poisoned" in given:
        environment = {"worker_process_setup_hook": poison, "env_vars": {"POISONED_CASE": str(given["poisoned"])}}
    if "write_s" in given:
        environment = {"worker_process_setup_hook": slow_down, "env_vars": {"WRITE_S": str(given["write_s"])}}
    ray.init(given["address"], log_to_driver=False, runtime_env=environment, **given.get("cluster", {}))
    Path(given["node"]).write_text(ray.get_runtime_context().get_node_id())
    config = SynthesisConfig(
        batch=given.get("batch", 2), cpus_per_actor=0.25, gates=False, refine=given.get("refine", True)
    )
    options = RunOptions(sampling=given["options"], command="the same again")
    pipeline = Pipeline.of_bundles("knee", 3, {stage: Path(root) for stage, root in given["bundles"].items()})
    try:
        synthesize(pipeline, given["count"], SEED, given["out"], config, options=options)
    except Medgen3dError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
