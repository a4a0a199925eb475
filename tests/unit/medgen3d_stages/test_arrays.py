import numpy as np
import torch

from medgen3d_stages.arrays import Example, child, normal


def test_the_noise_of_an_item_comes_from_its_own_stream_whoever_is_beside_it():
    def noise(*seeds: int) -> torch.Tensor:
        return normal((2, 3), [torch.Generator().manual_seed(seed) for seed in seeds], torch.device("cpu"))

    assert noise(1, 2).shape == (2, 2, 3)
    assert torch.equal(noise(1, 2)[1], noise(5, 2, 7)[1])
    assert torch.equal(noise(2)[0], torch.randn(2, 3, generator=torch.Generator().manual_seed(2)))


def test_children_of_a_stream_differ_and_are_repeatable():
    def first_numbers(seed: int) -> list[float]:
        parent = torch.Generator().manual_seed(seed)
        return [float(torch.rand((), generator=child(parent))) for _ in range(3)]

    assert len(set(first_numbers(0))) == 3
    assert first_numbers(0) == first_numbers(0) != first_numbers(1)


def test_an_example_without_its_padding_is_what_lies_in_the_box():
    mask = np.arange(2 * 4 * 5).reshape(2, 4, 5)
    image, inside = Example(image=mask.astype(np.float32), mask=mask, box=(1, 3, 0, 4)).cropped()
    assert inside[0].tolist() == [[5, 6, 7, 8], [10, 11, 12, 13]]
    assert np.array_equal(image, inside)
