import numpy as np
import pytest
import torch

from medgen3d_stages.arrays import Example
from medgen3d_stages.segmenter.config import SegmenterConfig
from medgen3d_stages.segmenter.objective import cut_patch, segmentation_loss

PLAIN = SegmenterConfig(patch=(16, 16, 16), rotation_degrees=0, zoom=0, intensity_jitter=0)
ISOTROPIC = (1.0, 1.0, 1.0)


def example(shape, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.uniform(-1, 1, shape).astype(np.float32)
    return Example(image=image, mask=(image > 0).astype(np.uint8), box=(0, shape[1], 0, shape[2]))


def test_without_changes_a_patch_as_large_as_the_case_is_the_case():
    case = example((16, 16, 16))
    cut = cut_patch(case, PLAIN, ISOTROPIC, np.random.default_rng(0))
    np.testing.assert_allclose(cut["image"][0], case.image, atol=1e-5)
    np.testing.assert_array_equal(cut["mask"][0], case.mask)


def test_a_patch_lies_wholly_inside_a_larger_case():
    case = example((40, 30, 24))
    whole = np.lib.stride_tricks.sliding_window_view(case.mask, PLAIN.patch)
    for seed in range(5):
        mask = cut_patch(case, PLAIN, ISOTROPIC, np.random.default_rng(seed))["mask"][0].numpy()
        # Its middle lies at a half or a whole voxel; nearest neighbour then takes a block of the case.
        assert (whole == mask).all(axis=(3, 4, 5)).any()


def test_beyond_a_small_case_image_and_mask_are_reflected_alike():
    case = example((8, 16, 16))
    cut = cut_patch(case, PLAIN, ISOTROPIC, np.random.default_rng(0))
    # 4 slices before and 4 after; the border slice itself is not repeated.
    order = [4, 3, 2, 1, *range(8), 6, 5, 4, 3]
    np.testing.assert_allclose(cut["image"][0], case.image[order], atol=1e-5)
    np.testing.assert_array_equal(cut["mask"][0], case.mask[order])


def test_a_turn_is_a_rotation_in_millimetres():
    # A ball of 12 mm seen with slices of 2 mm stays a ball when it is turned: in voxels its depth stays half its width.
    z, y, x = np.meshgrid(np.arange(16) * 2.0 - 15, np.arange(32) - 15.5, np.arange(32) - 15.5, indexing="ij")
    ball = (z**2 + y**2 + x**2 < 12**2).astype(np.uint8)
    case = Example(image=ball.astype(np.float32), mask=ball, box=(0, 32, 0, 32))
    turning = SegmenterConfig(patch=(16, 32, 32), rotation_degrees=90, zoom=0, intensity_jitter=0)
    for seed in range(3):
        turned = cut_patch(case, turning, (2.0, 1.0, 1.0), np.random.default_rng(seed))["mask"][0].numpy()
        assert np.mean(turned != ball) < 0.15  # its surface alone; turned in voxels it would be over 0.3


class Counting:
    """A volume that counts the voxels that are read of it."""

    def __init__(self, volume):
        self.volume, self.shape, self.dtype, self.read = volume, volume.shape, volume.dtype, 0

    def __len__(self):
        return len(self.volume)

    def __getitem__(self, key):
        part = self.volume[key]
        self.read += part.size
        return part


@pytest.mark.parametrize("shape", [(60, 50, 40), (9, 50, 40), (20, 13, 70)])
def test_of_a_case_what_is_read_is_what_the_patch_is_made_of(shape):
    config = SegmenterConfig(patch=(16, 16, 16), foreground_share=1.0, zoom=0.2, intensity_jitter=0)
    mask = np.zeros(shape, np.uint8)
    mask[5, 7:12, 8:12] = 3
    ramps = np.meshgrid(*(np.arange(side, dtype=np.float32) for side in shape), indexing="ij")
    for seed in range(20):
        # An image that shows each voxel's place along an axis says where a patch's voxels come from.
        images = [Counting(ramp) for ramp in ramps]
        cuts = [
            cut_patch(
                Example(image=image, mask=Counting(mask), box=(0, *shape[1:2], 0, *shape[2:])),
                config,
                (2.0, 1.0, 1.0),
                np.random.default_rng(seed),
            )
            for image in images
        ]
        places = np.stack([cut["image"][0].numpy() for cut in cuts])
        for along, side in zip(places, shape, strict=True):
            for axis in range(3):  # straight, except where the case's first or last voxel reflects it
                bends = np.abs(np.diff(along, n=2, axis=axis)) > 1e-3
                middle = along.take(range(1, 15), axis=axis)
                assert (np.minimum(middle, side - 1 - middle)[bends] < 1.7).all()
        clear = (np.abs(places % 1 - 0.5) > 1e-3).all(axis=0)
        nearest = mask[tuple(np.rint(places).astype(int))]
        np.testing.assert_array_equal(cuts[0]["mask"][0].numpy()[clear], nearest[clear])
        assert (nearest == 3).any()  # the patch's middle is a label, or as near to one as the borders allow
        assert images[0].read <= (16 * 1.25 * 2 * 1.8) ** 3


def test_contrast_and_brightness_change_within_their_range():
    case = Example(
        image=np.full((16, 16, 16), 0.5, np.float32), mask=np.zeros((16, 16, 16), np.uint8), box=(0, 16, 0, 16)
    )
    config = SegmenterConfig(patch=(16, 16, 16), intensity_jitter=0.2)
    levels = [
        float(cut_patch(case, config, ISOTROPIC, np.random.default_rng(seed))["image"].mean()) for seed in range(40)
    ]
    assert 0.5 * 0.8 - 0.1 <= min(levels) < 0.5 < max(levels) <= 0.5 * 1.2 + 0.1


@pytest.mark.parametrize(("certainty", "expected"), [(0.0, np.log(3)), (50.0, 0.0)])
def test_the_loss_knows_a_uniform_and_a_perfect_answer(certainty, expected):
    mask = torch.arange(3).repeat(9)[:24].reshape(1, 1, 2, 3, 4)
    logits = certainty * torch.nn.functional.one_hot(mask[:, 0], 3).movedim(-1, 1).float()
    loss = float(segmentation_loss(lambda _image: logits, {"image": torch.zeros(1), "mask": mask})["total"])
    # A uniform answer finds 8/3 of a label's 8 voxels and gives it 24/3 = 8 in all: Dice 2 (8/3) / (8 + 8) = 1/3.
    dice_loss = 1 - 1 / 3 if certainty == 0 else 0.0
    assert loss == pytest.approx(expected + dice_loss, abs=1e-3)
