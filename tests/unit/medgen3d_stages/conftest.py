from collections.abc import Callable

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def awaken() -> Callable[[torch.nn.Module], torch.nn.Module]:
    """Give every parameter that starts at zero (MONAI's output layers do) a small random value, repeatably."""

    def apply(network: torch.nn.Module) -> torch.nn.Module:
        rng = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in network.parameters():
                if not parameter.any():
                    parameter.copy_(0.1 * torch.randn(parameter.shape, generator=rng))
        return network.eval()

    return apply
