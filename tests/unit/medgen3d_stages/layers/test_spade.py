import torch
from torch import nn

from medgen3d_stages.layers.spade import Spade, SpadeBlock, spade_diffusion_unet
from medgen3d_stages.monai_parts import SPADE


def block() -> SpadeBlock:
    torch.manual_seed(0)
    return SpadeBlock(channels_in=8, channels_out=16, condition_channels=3, vector=5, hidden=4)


def test_the_condition_may_be_larger_than_the_features():
    out = block()(torch.randn(2, 8, 5, 6), torch.randn(2, 3, 20, 24), torch.randn(2, 5))
    assert out.shape == (2, 16, 5, 6)


def test_the_condition_acts_where_it_changes_and_the_vector_everywhere():
    layer, features = block(), torch.randn(1, 8, 12, 12, generator=torch.Generator().manual_seed(0))
    condition, vector = torch.zeros(1, 3, 12, 12), torch.zeros(1, 5)
    changed = condition.clone()
    changed[..., :2, :2] = 1.0
    near, far = (..., slice(0, 3), slice(0, 3)), (..., slice(9, 12), slice(9, 12))
    with torch.no_grad():
        before, by_condition = layer(features, condition, vector), layer(features, changed, vector)
        by_vector = layer(features, condition, vector + 1)
    change = (by_condition - before).abs()
    assert change[near].mean() > 3 * change[far].mean()  # far off, only the normalisation's mean carries it
    assert ((by_vector - before).abs().amax(dim=1) > 0).all()


def test_the_modulation_tells_which_label_fills_a_region():
    torch.manual_seed(0)
    layer = Spade(nn.InstanceNorm2d(8), channels=8, condition_channels=3, hidden=4)
    features = torch.randn(1, 8, 12, 12)
    hot = torch.eye(3)[:, :, None, None].expand(3, 3, 12, 12)
    with torch.no_grad():
        inside = [layer(features, hot[label : label + 1])[..., 3:9, 3:9] for label in range(3)]
    assert (inside[0] - inside[1]).abs().mean() > 0.01
    assert (inside[0] - inside[2]).abs().mean() > 0.01


def test_a_constant_in_the_features_changes_nothing():
    torch.manual_seed(0)
    layer = Spade(nn.InstanceNorm2d(8), channels=8, condition_channels=3, hidden=4)
    features, condition = torch.randn(1, 8, 12, 12), torch.rand(1, 3, 12, 12)
    with torch.no_grad():
        torch.testing.assert_close(layer(features + 5, condition), layer(features, condition), atol=1e-4, rtol=1e-4)


def test_the_diffusion_unet_holds_none_of_the_normalisations_that_were_replaced():
    unet = spade_diffusion_unet(
        num_planes=3,
        groups=8,
        hidden=4,
        in_channels=1,
        out_channels=1,
        channels=(8, 16),
        attention_levels=(False, True),
        num_res_blocks=1,
        num_head_channels=8,
    )
    kinds = [type(module) for module in unet.modules()]
    assert SPADE not in kinds
    assert kinds.count(Spade) > 0
