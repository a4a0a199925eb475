"""In which precision networks compute."""

import torch


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether to train in bfloat16: when asked for, or ("auto") where the device has instructions for it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def samples_in_bf16(device: torch.device) -> bool:
    """Whether samples are drawn in bfloat16: on GPUs that have instructions for it.

    Never on a CPU: whether it can differs among the machines of one cluster, and a case must not.
    """
    return device.type == "cuda" and uses_bf16("auto", device)
