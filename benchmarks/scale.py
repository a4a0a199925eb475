"""What a pair costs at clinical size, counted without a GPU: TFLOP, network calls and peak memory of every stage.

    python benchmarks/scale.py [--json FILE] [--labels 3 7 54 118] [--without-maisi]

The stages' own code runs on tensors without contents, and next to it the networks of MAISI-v2 as MONAI ships them, with
the published channels, 30 steps for the image and 1000 for the mask. Nothing is computed, so it ends within minutes on
any machine. 36 x 51 x 34 voxels have the options of the preset `workstation`, larger sizes those of `cluster`.

device_gib: As `medgen3d config show` counts it (`medgen3d/recipes/cost.py`).
host_gib: Volumes and masks in the process of the stage, and the process itself.
"""

import argparse
import json
import subprocess
import sys
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

from medgen3d.config.experiment import CHAIN
from medgen3d.config.load import load_config
from medgen3d.recipes.cost import Size, drawing_cost, training_cost
from medgen3d.recipes.counting import counted

SIZES: dict[Size, str] = {(36, 51, 34): "workstation", (128, 256, 256): "cluster", (200, 512, 512): "cluster"}
LABELS = (3, 7, 54, 118)
GIB = 2**30


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


def process_bytes() -> int:
    """What a process takes that has loaded the stages, before it has any volume."""
    # Not getrusage, whose maximum begins with what the process had that started this one.
    code = "import medgen3d_stages.chain; print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    return 1024 * int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def rows_of(size: Size, labels: int, base: int) -> list[Row]:
    """Every stage and their total."""
    config, rows = load_config(presets=[SIZES[size]]), []
    for name in CHAIN:
        cost = drawing_cost(name, config, size, labels)
        device, host = cost.device_bytes / GIB, (cost.host_bytes + base) / GIB
        rows.append(Row("medgen3d", size, labels, name, cost.tflop, cost.calls, device, host))
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
        step = training_cost(name, load_config(presets=["cluster"]), (200, 512, 512), max(chosen.labels))
        print(f"| {name} | 200 x 512 x 512 | {max(chosen.labels)} | {step.tflop:.3g} | {step.peak / GIB:.2f} |")


if __name__ == "__main__":
    main()
