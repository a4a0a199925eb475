"""What a pair costs at clinical size, counted without a GPU: TFLOP, network calls and peak memory of every stage.

    python benchmarks/scale.py [--json FILE] [--labels 3 7 54 118] [--without-maisi]

The stages' own code runs on tensors without contents, and next to it the networks of MAISI-v2 as MONAI ships them, with
the published channels, 30 steps for the image and 1000 for the mask. Nothing is computed, so it ends within minutes on
any machine. 36 x 51 x 34 voxels have the options of the preset `workstation`, larger sizes those of `cluster`.

device_gib: Weights, what lies on the device between steps, and the largest sum of tensors within a step, in bfloat16 as
CUDA's autocast has it: products and convolutions in bfloat16, norms in float32. The allocator's own waste is not in it.
host_gib: Volumes and masks in the process of the stage, and the process itself.
"""

import argparse
import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch
from weakref import WeakSet, finalize

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from medgen3d.config.experiment import CHAIN
from medgen3d.config.load import load_config
from medgen3d_stages.arrays import Example
from medgen3d_stages.catalogue import make_stage
from medgen3d_stages.contract import DataSpec, Stage
from medgen3d_stages.image_sequence_generator.network import History, Slice
from medgen3d_stages.image_sequence_generator.sampler import ImageRequest
from medgen3d_stages.mask_generator.sampler import MaskRequest, MaskRun, _predict_clean
from medgen3d_stages.refiner.network import VIEWS
from medgen3d_stages.refiner.sampler import RefineRequest, RefineRun

Size = tuple[int, int, int]
SIZES: dict[Size, str] = {(36, 51, 34): "workstation", (128, 256, 256): "cluster", (200, 512, 512): "cluster"}
LABELS = (3, 7, 54, 118)
GIB = 2**30


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make while it is on; `peak` is the largest sum of them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: WeakSet[torch.UntypedStorage] = WeakSet()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._watch(tensor.untyped_storage())
        return result

    def _watch(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._seen:
            self._seen.add(storage)
            size = storage.nbytes()
            self.now += size
            self.peak = max(self.peak, self.now)
            finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self.now -= size


@contextmanager
def norms_in_float32() -> Iterator[None]:
    """As CUDA's autocast has it: on a CPU norms would be computed in the precision that they meet."""
    with ExitStack() as stack:
        for name in ("group_norm", "instance_norm"):
            stack.enter_context(patch.object(F, name, _of_float32(getattr(F, name))))
        yield


def _of_float32(norm: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda features, *rest, **more: norm(features.float(), *rest, **more)


def in_bf16() -> torch.autocast:
    """As on a GPU that has it."""
    return torch.autocast("cpu", torch.bfloat16)


@dataclass(frozen=True)
class Counted:
    """One piece of work. peak: Bytes of the tensors that it makes."""

    tflop: float
    peak: int


def counted(work: Callable[[], object], autocast: AbstractContextManager[object] | None = None) -> Counted:
    """Do some work on tensors without contents, in bfloat16 unless it says what its precision is.

    Twice: while torch counts operations, it keeps what activation checkpointing would let go.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), norms_in_float32(), autocast or in_bf16():
        with FlopCounterMode(display=False) as flops:
            work()
        with PeakMemory() as memory:
            kept = work()  # until the mode ends, so that what is returned counts as living
            del kept
    return Counted(flops.get_total_flops() / 1e12, memory.peak)


@dataclass(frozen=True)
class Row:
    """A line of the table; `total` is all stages, one after the other on one device and host."""

    system: str
    size: Size
    labels: int
    stage: str
    tflop: float
    calls: int
    device_gib: float
    host_gib: float


def weights(network: nn.Module) -> int:
    """Bytes, in float32."""
    return sum(tensor.nbytes for tensor in network.state_dict().values())


def stage_of(name: str, size: Size, labels: int, preset: str) -> Stage:
    """With the plane that ingest would choose: multiples of 8."""
    depth, height, width = size
    plane = (-(-height // 8) * 8, -(-width // 8) * 8)
    spec = DataSpec(num_labels=labels, plane=plane, spacing_mm=(1.0, 1.0, 1.0), max_depth=depth)
    return make_stage(name, getattr(load_config(presets=[preset]), name), spec)


def mask_generator(stage: Any, size: Size) -> tuple[float, int, int, int]:
    """TFLOP, calls, bytes on the device and on the host. The number of calls does not depend on the plane."""
    small = DataSpec(num_labels=2, plane=(8, 8), spacing_mm=(1.0, 1.0, 1.0), max_depth=size[0])
    small_stage = make_stage("mask_generator", stage.config, small)
    network = small_stage.build()["denoiser"]
    rows: list[int] = []

    def nothing(noisy: Tensor, *_: Tensor) -> Tensor:
        rows.append(len(noisy))
        return noisy

    with patch.object(network, "forward", nothing):
        small_stage.sample({"denoiser": network}, [MaskRequest(shape=(size[0], 8, 8))], [torch.Generator()])

    denoiser = stage.build()["denoiser"]
    run = MaskRun(
        MaskRequest(shape=size), torch.Generator(), stage.config, stage.spec, stage.signal_kept, denoiser.labels
    )
    (window,) = run.windows
    resident = sum(each.nbytes for each in (window.clean, window.valid, window.unknown, window.indicator))
    resident += 2 * window.denoising.noisy.nbytes  # and what the step makes of it
    most = max(rows)
    with torch.no_grad():
        one = counted(lambda: _predict_clean(denoiser, [window], stage.config, stage.signal_kept))
        all_ = counted(lambda: _predict_clean(denoiser, [window] * most, stage.config, stage.signal_kept))
    voxels = int(np.prod(size))
    return one.tflop * sum(rows), len(rows), weights(denoiser) + most * resident + all_.peak, 6 * voxels


def image_sequence_generator(stage: Any, size: Size) -> tuple[float, int, int, int]:
    """The same of the second stage."""
    plane = stage.spec.plane
    network = stage.build()["generator"]
    rows: list[int] = []
    small = DataSpec(num_labels=2, plane=(8, 8), spacing_mm=(1.0, 1.0, 1.0), max_depth=size[0])
    small_stage = make_stage("image_sequence_generator", stage.config, small)

    def nothing(history: History, *_: Tensor) -> Slice:
        rows.append(len(history.images))
        return Slice(history.images[:, 0], history.images[:, 0], history.images[:, 0])

    small_network = small_stage.build()["generator"]
    with patch.object(small_network, "forward", nothing):
        mask = np.zeros((size[0], 8, 8), np.uint8)
        mask[size[0] // 2] = 1  # both directions are walked
        small_stage.sample({"generator": small_network}, [ImageRequest(mask=mask)], [torch.Generator()])

    def call(count: int) -> Callable[[], object]:
        length = stage.config.history
        masks = torch.zeros((count, length + 1, *plane), dtype=torch.int32)
        history = History(masks, torch.zeros((count, length, *plane)), torch.ones((count, length)))
        places = torch.zeros((count, 2, *plane))
        return lambda: network(history, torch.zeros((count, stage.config.style)), torch.zeros(count), places)

    most = max(rows)
    with torch.no_grad():
        one, all_ = counted(call(1)), counted(call(most))
    inputs = most * plane[0] * plane[1] * 4 * (2 * stage.config.history + 3)
    return one.tflop * sum(rows), len(rows), weights(network) + inputs + all_.peak, 11 * int(np.prod(size))


def refiner(stage: Any, size: Size) -> tuple[float, int, int, int]:
    """The same of the third stage: one step along each view, times how often it is taken."""
    network, config = stage.build()["denoiser"], stage.config
    request = RefineRequest(image=np.zeros(size, np.float32), mask=np.zeros(size, np.uint8))
    run = RefineRun(request, torch.Generator(), config, stage.spec, stage.signal_kept)
    noisy, run._mask = torch.zeros(size), torch.zeros(size, dtype=torch.int32)
    with torch.no_grad():
        views = [counted(lambda view=view: run._predict(network, noisy, 0, view)) for view in range(len(VIEWS))]
    taken = [view for views_of_pass in run._passes for view in _views(views_of_pass, config.sampling_steps)]
    num_calls = sum(-(-size[view] // config.slice_batch) for view in taken)
    # The image, the mask, the noise and what is noisy, besides what a step makes of them.
    resident = 4 * noisy.nbytes
    peak = max(view.peak for view in views) + 2 * noisy.nbytes
    tflop = sum(views[view].tflop for view in taken)
    return tflop, num_calls, weights(network) + resident + peak, 10 * int(np.prod(size))


def _views(views: list[int], steps: int) -> list[int]:
    return [views[step % len(views)] for step in range(steps)]


COUNTS = {"mask_generator": mask_generator, "image_sequence_generator": image_sequence_generator, "refiner": refiner}


def training_batch(stage: Stage, size: Size, batch_size: int) -> dict[str, Tensor]:
    """Of empty examples."""
    volume = (size[0], *stage.spec.plane)
    example = Example(image=np.zeros(volume, np.float32), mask=np.zeros(volume, np.uint8), box=(0, size[1], 0, size[2]))
    cut = stage.cut(example, np.random.default_rng(0))
    return {key: torch.stack([value] * batch_size) for key, value in cut.items()}


def two_steps(
    stage: Stage, batch: dict[str, Tensor], precision: Callable[[], AbstractContextManager[object]]
) -> Callable[[], object]:
    """Two optimiser steps from the beginning: from the first one on, the optimisers have their moments."""

    def work() -> object:
        networks = stage.build()
        averages = [
            {key: value.clone() for key, value in networks[part].state_dict().items()} for part in stage.sampled
        ]
        optimizers = {
            turn: torch.optim.AdamW([parameter for part in parts for parameter in networks[part].parameters()])
            for turn, parts in stage.turns.items()
        }
        for _ in range(2):
            for turn, parts in stage.turns.items():
                for part, network in networks.items():
                    network.requires_grad_(part in parts)
                optimizers[turn].zero_grad()
                with precision():
                    loss = stage.loss(turn, networks, batch, torch.Generator(), 0.5)["total"]
                loss.backward()
                del loss
                optimizers[turn].step()
        return networks, averages, optimizers

    return work


def training_step(name: str, size: Size, labels: int, preset: str) -> Counted:
    """One optimiser step of a stage, all its turns: TFLOP, and bytes of everything that lies on the device."""
    stage = stage_of(name, size, labels, preset)
    batch = training_batch(stage, size, getattr(load_config(presets=[preset]).training, name).batch_size)
    both = counted(two_steps(stage, batch, in_bf16), nullcontext())
    return Counted(both.tflop / 2, both.peak + sum(tensor.nbytes for tensor in batch.values()))


def process_bytes() -> int:
    """What a process takes that has loaded the stages, before it has any volume."""
    code = "import resource, medgen3d_stages.chain; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    return 1024 * int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def rows_of(size: Size, labels: int, base: int) -> list[Row]:
    """Every stage and their total."""
    rows = []
    for name in CHAIN:
        tflop, calls, device, host = COUNTS[name](stage_of(name, size, labels, SIZES[size]), size)
        rows.append(Row("medgen3d", size, labels, name, tflop, calls, device / GIB, (host + base) / GIB))
    return [*rows, total(rows)]


def total(rows: list[Row]) -> Row:
    """Of stages that run one after the other on one device and one host."""
    sums = {"tflop": sum(row.tflop for row in rows), "calls": sum(row.calls for row in rows)}
    most = {name: max(getattr(row, name) for row in rows) for name in ("device_gib", "host_gib")}
    return replace(rows[0], stage="total", **sums, **most)


# MAISI-v2 (rectified flow), with the options of its published configuration.

UNET: dict[str, Any] = {
    "spatial_dims": 3,
    "in_channels": 4,
    "num_channels": (64, 128, 256, 512),
    "attention_levels": (False, False, True, True),
    "num_head_channels": (0, 0, 32, 32),
    "num_res_blocks": 2,
    "use_flash_attention": True,
}
DECODER: dict[str, Any] = {
    "spatial_dims": 3,
    "latent_channels": 4,
    "attention_levels": (False, False, False),
    "with_encoder_nonlocal_attn": False,
    "with_decoder_nonlocal_attn": False,
    "norm_num_groups": 32,
    "norm_float16": False,  # float16 in the norms has no counterpart under autocast
    "num_splits": 1,  # what is split is counted alike
}
STEPS, MASK_STEPS, MASK_LATENT = 30, 1000, (64, 64, 64)


def maisi_rows(size: Size, base: int) -> list[Row]:
    """Its image networks; then the same with its mask diffusion, which draws 256 x 256 x 256 voxels always."""
    from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi
    from monai.apps.generation.maisi.networks.controlnet_maisi import ControlNetMaisi
    from monai.apps.generation.maisi.networks.diffusion_model_unet_maisi import DiffusionModelUNetMaisi
    from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

    # Its networks refuse flash attention on a machine without a GPU; here nothing is computed.
    with patch("torch.cuda.is_available", return_value=True):
        unet = DiffusionModelUNetMaisi(
            **UNET,
            out_channels=4,
            include_spacing_input=True,
            num_class_embeds=128,
            resblock_updown=True,
            include_fc=True,
        )
        control = ControlNetMaisi(
            **UNET,
            conditioning_embedding_in_channels=8,
            conditioning_embedding_num_channels=(8, 32, 64),
            num_class_embeds=128,
            resblock_updown=True,
            include_fc=True,
        )
    latent = tuple(-(-side // 32) * 8 for side in size)  # a quarter of the sides, as its networks can halve them
    voxels = [4 * side for side in latent]
    decoder = AutoencoderKlMaisi(
        **DECODER, in_channels=1, out_channels=1, num_channels=(64, 128, 256), num_res_blocks=(2, 2, 2)
    )
    time, kind, spacing = torch.zeros(1), torch.zeros(1, dtype=torch.long), torch.ones(1, 3)

    def step() -> object:
        noisy, shown = torch.zeros(1, 4, *latent), torch.zeros(1, 8, *voxels)
        down, middle = control(x=noisy, timesteps=time, controlnet_cond=shown, class_labels=kind)
        return unet(
            x=noisy,
            timesteps=time,
            spacing_tensor=spacing,
            class_labels=kind,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        )

    mask_unet = DiffusionModelUNet(
        **{name: value for name, value in UNET.items() if name != "num_channels"},
        channels=UNET["num_channels"],
        out_channels=4,
        with_conditioning=True,
        upcast_attention=True,
        cross_attention_dim=10,
    )
    mask_decoder = AutoencoderKlMaisi(
        **DECODER, in_channels=8, out_channels=125, num_channels=(32, 64, 128), num_res_blocks=(1, 2, 2)
    )

    def mask_step() -> object:
        return mask_unet(torch.zeros(1, 4, *MASK_LATENT), timesteps=time, context=torch.zeros(1, 1, 10))

    with torch.no_grad():
        drawn = counted(step)
        decoded = counted(lambda: decoder.decode_stage_2_outputs(torch.zeros(1, 4, *latent)))
        mask_drawn = counted(mask_step)
        mask_decoded = counted(lambda: mask_decoder.decode_stage_2_outputs(torch.zeros(1, 4, *MASK_LATENT)))
    image_bytes = 4 * int(np.prod(voxels))
    rows = []
    for stage, each, times, networks in (
        ("masks", mask_drawn, MASK_STEPS, (mask_unet,)),
        ("mask_decoder", mask_decoded, 1, (mask_decoder,)),
        ("image", drawn, STEPS, (unet, control)),
        ("image_decoder", decoded, 1, (decoder,)),
    ):
        device = sum(map(weights, networks)) + each.peak
        host = base + image_bytes
        rows.append(Row("maisi-v2-with-masks", size, 125, stage, times * each.tflop, times, device / GIB, host / GIB))
    without = [replace(row, system="maisi-v2") for row in rows[2:]]
    return [*without, total(without), *rows, total(rows)]


def main() -> None:
    """Print the table of totals, then of stages; write all rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file to write all rows to")
    parser.add_argument("--labels", type=int, nargs="+", default=LABELS)
    parser.add_argument("--without-maisi", action="store_true")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    base, rows = process_bytes(), []
    for size in SIZES:
        for labels in chosen.labels:
            rows += rows_of(size, labels, base)
        if not chosen.without_maisi:
            rows += maisi_rows(size, base)
        print(f"{size} counted", file=sys.stderr, flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps({"rows": [asdict(row) for row in rows]}, indent=1))
    print("| system | size | labels | stage | TFLOP | network calls | device GiB | host GiB |")
    print("| --- | --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for row in rows:
        size_text = " x ".join(map(str, row.size))
        figures = f"{row.tflop:.3g} | {row.calls} | {row.device_gib:.2f} | {row.host_gib:.2f}"
        print(f"| {row.system} | {size_text} | {row.labels} | {row.stage} | {figures} |")
    print("\n| one optimiser step, preset cluster | size | labels | TFLOP | device GiB |")
    print("| --- | --- | ---: | ---: | ---: |")
    for name in CHAIN:
        step = training_step(name, (200, 512, 512), max(chosen.labels), "cluster")
        print(f"| {name} | 200 x 512 x 512 | {max(chosen.labels)} | {step.tflop:.3g} | {step.peak / GIB:.2f} |")


if __name__ == "__main__":
    main()
