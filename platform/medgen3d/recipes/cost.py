"""The cost of a configuration: TFLOP, network calls and peak memory of drawing a pair and of a training step.

Counted, not measured: the stages' own code runs on tensors without contents, so that no GPU is needed and a volume may
be larger than this machine. Memory on the device is weights, what lies there between steps, and the largest sum of
tensors within a step in bfloat16, as CUDA's autocast has it: products and convolutions in bfloat16, norms in float32.
What an allocator wastes is not in it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medgen3d.config.experiment import ExperimentConfig
from medgen3d.recipes.counting import Counted, counted, in_bf16, peak_of, tflop_of, without_contents
from medgen3d_stages.arrays import Example, Networks
from medgen3d_stages.catalogue import make_stage
from medgen3d_stages.contract import DataSpec, Stage
from medgen3d_stages.image_sequence_generator.network import History
from medgen3d_stages.image_sequence_generator.sampler import ImageRequest, ImageRun
from medgen3d_stages.mask_generator.sampler import MaskRequest, MaskRun, predict_clean
from medgen3d_stages.refiner.network import VIEWS
from medgen3d_stages.refiner.sampler import RefineRequest, RefineRun

Size = tuple[int, int, int]
Precision = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class StageCost:
    """Of drawing one sample with one stage.

    tflop: Floating point operations, 10^12.
    calls: Of the network.
    device_bytes, host_bytes: Peak memory; the host's is that of volumes alone.
    """

    tflop: float
    calls: int
    device_bytes: int
    host_bytes: int


def make_empty_stage(name: str, config: ExperimentConfig, size: Size, labels: int) -> Stage:
    """A stage for cases of this size, with the plane that ingest would choose: multiples of 8.

    Raises:
        ValueError: The stage does not fit a plane of this size.
    """
    depth, *sides = size
    height, width = (-(-side // 8) * 8 for side in sides)
    spec = DataSpec(num_labels=labels, plane=(height, width), spacing_mm=(1.0, 1.0, 1.0), max_depth=depth)
    return make_stage(name, getattr(config, name), spec)


def drawing_cost(name: str, config: ExperimentConfig, size: Size, labels: int) -> StageCost:
    """Of one sample of a stage that makes pairs, at (D, H, W)."""
    stage = make_empty_stage(name, config, size, labels)
    with torch.no_grad():
        return _DRAWING[name](stage, size)


def _bytes_of(network: nn.Module) -> int:
    """In float32."""
    return sum(tensor.nbytes for tensor in network.state_dict().values())


def _mask_generator(stage: Any, size: Size) -> StageCost:
    denoiser = stage.build()["denoiser"]

    def run(plane: tuple[int, int]) -> MaskRun:
        request, spec = MaskRequest(shape=(size[0], *plane)), replace(stage.spec, plane=plane)
        return MaskRun(request, torch.Generator(), stage.config, spec, stage.signal_kept, denoiser.labels)

    small, rows = run((8, 8)), []  # how often the network is called does not depend on the plane
    while small.rows:
        rows.append(small.rows)
        for window in small.windows:
            window.denoising.take(window.clean[None])
        small.settle()
    (window,) = run(stage.spec.plane).windows
    resident = sum(each.nbytes for each in (window.clean, window.valid, window.unknown, window.indicator))
    resident += 2 * window.denoising.noisy.nbytes  # and what the step makes of it
    most = max(rows)
    one = counted(lambda: predict_clean(denoiser, [window], stage.config, stage.signal_kept))
    together = counted(lambda: predict_clean(denoiser, [window] * most, stage.config, stage.signal_kept))
    device = _bytes_of(denoiser) + most * resident + together.peak
    return StageCost(one.tflop * sum(rows), len(rows), device, 6 * int(np.prod(size)))


def _image_sequence_generator(stage: Any, size: Size) -> StageCost:
    network, config, plane = stage.build()["generator"], stage.config, stage.spec.plane
    middle = np.zeros((size[0], 8, 8), np.uint8)
    middle[size[0] // 2] = 1  # both directions are walked
    run, rows = ImageRun(ImageRequest(mask=middle), torch.Generator(), config, replace(stage.spec, plane=(8, 8))), []
    while run.rows:
        rows.append(run.rows)
        run.settle()

    def call(count: int) -> Counted:
        masks = torch.zeros((count, config.history + 1, *plane), dtype=torch.int32)
        history = History(masks, torch.zeros((count, config.history, *plane)), torch.ones((count, config.history)))
        places = torch.zeros((count, 2, *plane))
        return counted(lambda: network(history, torch.zeros((count, config.style)), torch.zeros(count), places))

    most = max(rows)
    inputs = most * plane[0] * plane[1] * 4 * (2 * config.history + 3)
    device = _bytes_of(network) + inputs + call(most).peak
    return StageCost(call(1).tflop * sum(rows), len(rows), device, 11 * int(np.prod(size)))


def _refiner(stage: Any, size: Size) -> StageCost:
    """One step along each view, times how often it is taken."""
    network, config = stage.build()["denoiser"], stage.config
    request = RefineRequest(image=np.zeros(size, np.float32), mask=np.zeros(size, np.uint8))
    run = RefineRun(request, torch.Generator(), config, stage.spec, stage.signal_kept)

    def step(view: int) -> tuple[float, int, int]:
        """TFLOP, calls and the peak of one."""
        plane = [side for axis, side in enumerate(size) if axis != view]
        whole, rest = divmod(size[view], config.slice_batch)
        parts = [(whole, config.slice_batch), (1, rest)]
        costs = [
            (times, counted(_slices(run, network, (count, *plane), view))) for times, count in parts if times and count
        ]
        tflop = sum(times * cost.tflop for times, cost in costs)
        return tflop, sum(times for times, _ in costs), max(cost.peak for _, cost in costs)

    views = [step(view) for view in range(len(VIEWS))]
    # The image, the mask, the noise, what is noisy and two that a step makes of them.
    device = _bytes_of(network) + 6 * 4 * int(np.prod(size)) + max(peak for _, _, peak in views)
    tflop, calls = sum(views[view][0] for view in run.views), sum(views[view][1] for view in run.views)
    return StageCost(tflop, calls, device, 10 * int(np.prod(size)))


def _slices(run: RefineRun, network: Any, shape: tuple[int, ...], view: int) -> Callable[[], object]:
    slices, masks = torch.zeros(shape), torch.zeros(shape, dtype=torch.int32)
    return lambda: run.predict_slices(network, slices[:, None], masks, 0, view)


_DRAWING: dict[str, Callable[[Any, Size], StageCost]] = {
    "mask_generator": _mask_generator,
    "image_sequence_generator": _image_sequence_generator,
    "refiner": _refiner,
}


def training_cost(name: str, config: ExperimentConfig, size: Size, labels: int) -> Counted:
    """One optimiser step of a worker, all its turns: TFLOP, and bytes of everything that lies on the device."""
    stage = make_empty_stage(name, config, size, labels)
    batch = empty_batch(stage, size, getattr(config.training, name).batch_size)
    work = training_work(stage, batch, in_bf16)
    losses = training_work(stage, batch, in_bf16, from_beginning=False)
    inputs = sum(tensor.nbytes for tensor in batch.values())
    with without_contents(nullcontext()):
        return Counted(tflop_of(losses), peak_of(work) + inputs)


def empty_batch(stage: Stage, size: Size, batch_size: int) -> dict[str, Tensor]:
    """Examples of nothing."""
    volume = (size[0], *stage.spec.plane)
    example = Example(image=np.zeros(volume, np.float32), mask=np.zeros(volume, np.uint8), box=(0, size[1], 0, size[2]))
    cut = stage.cut(example, np.random.default_rng(0))
    return {key: torch.stack([value] * batch_size) for key, value in cut.items()}


def training_work(
    stage: Stage, batch: dict[str, Tensor], precision: Precision, *, from_beginning: bool = True
) -> Callable[[], object]:
    """One optimiser step, all its turns, with everything on the device that later steps find there.

    from_beginning: Build networks, their averages and the optimisers' moments first; False: the losses and their
        gradients alone.
    """

    def work() -> object:
        networks = stage.build()
        if not from_beginning:
            _turns(stage, networks, batch, precision)
            return networks
        averages = [
            {key: value.clone() for key, value in networks[part].state_dict().items()} for part in stage.sampled
        ]
        optimizers = {
            turn: torch.optim.AdamW([each for part in parts for each in networks[part].parameters()])
            for turn, parts in stage.turns.items()
        }
        for optimizer in optimizers.values():
            for parameter in optimizer.param_groups[0]["params"]:
                parameter.grad = torch.zeros_like(parameter)
            optimizer.step()  # makes the moments; the gradients stay, as those of the step before do
        _turns(stage, networks, batch, precision, optimizers)
        return networks, averages, optimizers

    return work


def _turns(
    stage: Stage,
    networks: Networks,
    batch: dict[str, Tensor],
    precision: Precision,
    optimizers: dict[str, torch.optim.AdamW] | None = None,
) -> None:
    for turn, parts in stage.turns.items():
        for part, network in networks.items():
            network.requires_grad_(part in parts)
        if optimizers:
            optimizers[turn].zero_grad()
        with precision():
            loss = stage.loss(turn, networks, batch, torch.Generator(), 0.5)["total"]
        loss.backward()
        del loss
        if optimizers:
            optimizers[turn].step()
