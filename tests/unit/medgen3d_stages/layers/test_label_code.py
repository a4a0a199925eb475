import numpy as np
import pytest
import torch

from medgen3d_stages.layers.label_code import NO_LABEL, PLANES, LabelHead, LabelPlanes, spread_codes


def test_few_labels_have_a_plane_each():
    assert spread_codes(3).tolist() == [[1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
    planes = LabelPlanes(2)
    assert planes(torch.tensor([[[0, 1], [NO_LABEL, 1]]])).tolist() == [[[[1, 0], [0, 0]], [[0, 1], [0, 1]]]]
    assert not planes.state_dict()


@pytest.mark.parametrize("num_labels", [9, 16, 54, 118])
def test_many_labels_share_planes_and_lie_about_as_far_apart_as_one_hot_labels_do(num_labels):
    codes = spread_codes(num_labels)
    assert codes.shape == (num_labels, PLANES)
    torch.testing.assert_close(codes.norm(dim=1), torch.full((num_labels,), PLANES**0.5))
    distances = torch.cdist(codes, codes) + 9 * torch.eye(num_labels)
    assert distances.min() > 0.98 * np.sqrt(8)  # of two one-hot labels in {-1, +1}
    assert torch.equal(codes, spread_codes(num_labels))


def test_every_label_is_shown_by_numbers_of_its_own_that_are_learnt():
    planes = LabelPlanes(20)
    labels = torch.tensor([[0, 19, NO_LABEL, 19]])
    shown = planes(labels)
    assert shown.shape == (1, PLANES, 4)
    assert torch.equal(shown[..., 1], shown[..., 3])
    assert not torch.allclose(shown[..., 0], shown[..., 1])
    assert not shown[..., 2].any()
    shown.sum().backward()
    assert planes.table.grad.sum(dim=1).tolist() == [PLANES, *[0] * 18, 2 * PLANES]


@pytest.mark.parametrize("num_labels", [3, 20])
def test_a_certain_network_decodes_to_the_signal_and_the_label_themselves(num_labels):
    head = LabelHead(num_labels)
    mask = torch.randint(0, num_labels, (2, 3, 4, 5), generator=torch.Generator().manual_seed(0))
    certain = torch.nn.functional.one_hot(mask, num_labels).movedim(-1, 1) * 100.0
    torch.testing.assert_close(head.expected(certain.softmax(dim=1)), head.encode(mask))
    if num_labels == 3:  # logits are the features themselves
        signal, labels = head.decode(certain)
        torch.testing.assert_close(signal, head.encode(mask))
        assert torch.equal(labels, mask)


@pytest.mark.parametrize("num_labels", [3, 20])
def test_slab_by_slab_is_the_whole_at_once(num_labels, monkeypatch):
    torch.manual_seed(0)
    head = LabelHead(num_labels)
    features, free = torch.randn(2, 2, head.num_features, 5, 4, 6)
    for arguments in ((features,), (features, free, 2.0)):
        whole = head.decode(*arguments)
        with monkeypatch.context() as patch:
            patch.setattr("medgen3d_stages.layers.label_code._SLAB", 1)
            assert head.slab(features) == 1
            parts = head.decode(*arguments)
        torch.testing.assert_close(parts[0], whole[0])
        assert torch.equal(parts[1], whole[1])


def test_guidance_goes_beyond_what_the_condition_changes_and_stays_in_range():
    head = LabelHead(2)
    # Probabilities of label 0: 0.75 with the condition, 0.5 without it; 0.5 + 3 * 0.25 = 1.25.
    features = torch.tensor([np.log(3.0), 0.0]).float()[None, :, None, None, None]
    signal, labels = head.decode(features, torch.zeros_like(features), 2.0)
    assert signal.flatten().tolist() == pytest.approx([1.0, -1.0])
    signal, labels = head.decode(features, torch.zeros_like(features), 3.0)
    assert signal.flatten().tolist() == [1.0, -1.0]
    assert labels.item() == 0
