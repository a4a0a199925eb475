import numpy as np
import pytest
import torch

from medgen3d_stages.segmenter.config import SegmenterConfig
from medgen3d_stages.segmenter.network import segmentation_network
from medgen3d_stages.segmenter.sampler import SegmentRequest, encoder_features, segment_volumes

CONFIG = SegmenterConfig(channels=8, num_res_blocks=(1, 1), patch=(8, 16, 16))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return segmentation_network(CONFIG, 3).eval()


@pytest.mark.parametrize("shape", [(5, 9, 30), (8, 16, 16), (11, 17, 20), (1, 1, 1)])
def test_masks_and_features_cover_volumes_of_any_size(network, shape):
    image = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    (mask,) = segment_volumes(network, [SegmentRequest(image=image)], CONFIG)
    assert (mask.shape, mask.dtype) == (shape, np.uint16)
    assert mask.max() < 3
    features = encoder_features(network, image, CONFIG)
    assert features.shape == (16, *(-(-side // 2) for side in shape))
    assert np.isfinite(features).all()


def test_a_volume_of_one_window_gets_what_the_network_says(network):
    image = np.random.default_rng(1).uniform(-1, 1, (8, 16, 16)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(image)[None, None])[0].argmax(dim=0).numpy()
        encoded = network.encode(torch.from_numpy(image)[None, None])[0][0].numpy()
    (mask,) = segment_volumes(network, [SegmentRequest(image=image)], CONFIG)
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_allclose(encoder_features(network, image, CONFIG), encoded, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [(np.zeros((4, 4)), "must be \\[D, h, w\\]"), (np.full((4, 4, 4), np.nan), "NaN or infinite")],
)
def test_what_is_no_volume_is_refused(network, image, sentence):
    with pytest.raises(ValueError, match=sentence):
        segment_volumes(network, [SegmentRequest(image=image)], CONFIG)
