"""CT-FM's encoder as a backbone (Pai et al. 2025, arXiv 2501.09001), for weights that its authors publish.

B scans, C windows, N places of the last feature map, D width.

The published file is `project-lighter/ct_fm_feature_extractor`, or `ct_fm_segresnet` with the same encoder: MONAI's
SegResEncoder with 32 filters and 1, 2, 2, 4, 4 blocks, of which the last feature map is averaged. What its authors show
it, by their model card and their script for linear probes (`extract_feat_LP.py`): one channel, −1024 to 2048 HU scaled
to 0..1, voxels of 1 mm, axes running to superior, posterior and left. Theirs is the whole scan, here it is the head.

That the features equal the authors' isn't tested, as their file can't be had here: names and shapes of tensors are.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fmct.experiment.config import Config


class CTFMConfig(Config):
    """The encoder of a SegResNet (Myronenko 2018, arXiv 1810.11654), as MONAI builds it and CT-FM uses it."""

    kind: Literal["ctfm"] = "ctfm"
    filters: int = Field(32, gt=0, description="channels of the first level, doubled at each of the next")
    blocks: tuple[int, ...] = Field((1, 2, 2, 4, 4), min_length=1, description="residual blocks of each level")

    def build(self, in_channels: int, input_voxels: int | tuple[int, int, int]) -> CTFM:
        """Make the backbone, randomly initialized, for inputs of any size.

        Args:
            in_channels: C; the published weights have 1.
            input_voxels: edge of the usual input; nothing depends on it.
        """
        return CTFM(self, in_channels)


class CTFM(nn.Module):
    """The backbone; made by `CTFMConfig.build`. The token for the scan is the mean of the last feature map.

    Attributes:
        config: what it was built from.
        in_channels: C.
        width: D, 512 for the published weights.
        net: MONAI's encoder.
    """

    def __init__(self, config: CTFMConfig, in_channels: int) -> None:
        from monai.networks.nets.segresnet_ds import SegResEncoder  # takes seconds to import

        super().__init__()
        self.config = config
        self.in_channels = in_channels
        self.width = config.filters * 2 ** (len(config.blocks) - 1)
        self.net: Any = SegResEncoder(
            spatial_dims=3, init_filters=config.filters, in_channels=in_channels, blocks_down=config.blocks
        )

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Turn windows into tokens.

        Args:
            x_BCZYX: (B, C, Z, Y, X) float windows in [0, 1], axes running to superior, anterior and right as everywhere
                here; they are turned to what CT-FM was trained on.

        Returns:
            (B, 1 + N, D): the mean over all places, then the places, in row-major order of the input's axes.
        """
        places = self.net(x_BCZYX.flip((-2, -1)))[-1].flip((-2, -1))
        places_BND = places.flatten(2).transpose(1, 2)
        return torch.cat([places_BND.mean(1, keepdim=True), places_BND], dim=1)
