"""The network: MONAI's SegResNet, whose encoder also describes images for the evaluation."""

from medgen3d_stages.monai_parts import SegResNet
from medgen3d_stages.segmenter.config import SegmenterConfig


def segmentation_network(config: SegmenterConfig, num_labels: int) -> SegResNet:
    """Image [B, 1, d, h, w] -> logits [B, K, d, h, w]; sides are multiples of 2 ** (levels - 1).

    Group normalisation keeps how strong the channels are relative to one another, which the encoder's features are
    compared by. Source: Myronenko 2018 (arXiv:1810.11654).
    """
    return SegResNet(
        spatial_dims=3,
        init_filters=config.channels,
        in_channels=1,
        out_channels=num_labels,
        blocks_down=config.num_res_blocks,
        blocks_up=(1,) * (len(config.num_res_blocks) - 1),
    )
