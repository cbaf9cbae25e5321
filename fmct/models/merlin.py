"""Merlin's image encoder as a backbone (Blankemeier et al. 2024, arXiv 2406.06512), for its authors' weights.

B scans, C windows, N places of the last feature map, D width.

The published file is a checkpoint of `stanfordmimi/Merlin`, image and text encoder together. The image encoder is a
ResNet-152 whose convolutions were inflated to 3D: the first one is 3 × 7 × 7 with a stride of 1 × 2 × 2, every 3 × 3
one became 3 × 3 × 3 with its stride on all axes, 1 × 1 ones stayed. Its image embedding is the mean of the last feature
map, 2048 values. What it was shown, by its authors' code (`monai_transforms.py`, `i3res.py`): −1000 to 1000 HU scaled
to 0..1 in three equal channels; 1.5 mm in the slice and 3 mm across, padded with air to 224 × 224 in 160 slices; axes
running to superior, right and anterior. Volumes here have 1.5 mm on all axes and hold the head alone: pairs of slices
are averaged, and what lacks is padded, in here.

That the features equal the authors' isn't tested, as their file can't be had here: names and shapes of tensors are.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from fmct.console.errors import UsageError
from fmct.experiment.config import Config
from fmct.models.cnn import STAGES, StagedNetwork

CHANNELS = 3


class MerlinConfig(Config):
    """A ResNet inflated to 3D (Carreira & Zisserman 2017, arXiv 1705.07750), built of MONAI's as Merlin uses it."""

    kind: Literal["merlin"] = "merlin"
    depth: Literal[50, 101, 152] = Field(152, description="number of layers")
    widen: float = Field(1.0, gt=0, description="factor on the channels of every layer, which are 64 to 512 at first")
    slices_averaged: int = Field(2, gt=0, description="neighboring slices that are averaged: 2 makes 3 mm of 1.5 mm")
    pad_zyx: tuple[int, int, int] | None = Field(
        (160, 224, 224),
        description="pad smaller inputs with zeros to this size, on both sides; null: not at all",
    )

    def build(self, in_channels: int, input_voxels: int | tuple[int, int, int]) -> Merlin:
        """Make the backbone, randomly initialized, for inputs of any size.

        Args:
            in_channels: C, 1 or 3.
            input_voxels: edge of the usual input; nothing depends on it.

        Raises:
            UsageError: for another number of channels.
        """
        if in_channels not in {1, CHANNELS}:
            raise UsageError(
                f"the backbone merlin takes 1 window (three times) or 3, not {in_channels}",
                "input.windows",
                "use the published one: level 0 HU, width 2000 HU",
            )
        return Merlin(self, in_channels)


class Merlin(StagedNetwork):
    """The backbone; made by `MerlinConfig.build`. The token for the scan is the mean of the last feature map.

    Attributes:
        config: what it was built from.
        in_channels: C.
        width: D, 2048 for the published weights.
        net: MONAI's network, without its classifier.
    """

    def __init__(self, config: MerlinConfig, in_channels: int) -> None:
        from monai.networks.nets import resnet  # takes seconds to import

        super().__init__()
        self.config = config
        self.in_channels = in_channels
        build: Any = getattr(resnet, f"resnet{config.depth}")
        self.net: Any = build(
            spatial_dims=3,
            n_input_channels=CHANNELS,
            feed_forward=False,
            conv1_t_size=(3, 7, 7),
            conv1_t_stride=(1, 2, 2),
            bias_downsample=False,
            widen_factor=config.widen,
        )
        self.width: int = self.net.in_planes

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Turn windows into tokens.

        Args:
            x_BCZYX: (B, C, Z, Y, X) float windows in [0, 1], axes running to superior, anterior and right as everywhere
                here; they are turned to what Merlin was trained on.

        Returns:
            (B, 1 + N, D): the mean over all places, padding among them, then the places, in row-major order of z, y, x.
        """
        x = F.avg_pool3d(x_BCZYX, (self.config.slices_averaged, 1, 1)).expand(-1, CHANNELS, -1, -1, -1)
        if self.config.pad_zyx:
            lacking = [max(0, wanted - size) for wanted, size in zip(self.config.pad_zyx, x.shape[2:], strict=True)]
            x = F.pad(x, [part for lack in reversed(lacking) for part in (lack // 2, lack - lack // 2)])
        x = x.transpose(-2, -1)  # (B, 3, Z, X, Y)
        x = self.net.maxpool(self.net.act(self.net.bn1(self.net.conv1(x))))
        for stage in range(1, STAGES + 1):
            x = getattr(self.net, f"layer{stage}")(x)
        places_BND = x.transpose(-2, -1).flatten(2).transpose(1, 2)
        return torch.cat([places_BND.mean(1, keepdim=True), places_BND], dim=1)
