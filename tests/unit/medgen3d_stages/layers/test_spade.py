import torch

from medgen3d_stages.layers.spade import SpadeBlock


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
