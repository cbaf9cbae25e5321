"""MONAI's 3D ResNets as backbones: what a convolutional network makes of the same scans.

B scans, C windows, N places of the last feature map, D width.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fmct.experiment.config import Config

STAGES = 4


class ResNetConfig(Config):
    """A ResNet (He et al. 2016, arXiv 1512.03385) in 3D (Hara et al. 2018, arXiv 1711.09577), as MONAI builds it.

    It has no patches and no tokens of its own: masked image modelling can't use it. Batch norms take their statistics
    from a device's batch in training, so that scans and processes aren't independent of each other as in `vit3d`.
    """

    kind: Literal["resnet"] = "resnet"
    depth: Literal[10, 18, 34, 50, 101, 152, 200] = Field(18, description="number of layers")
    widen: float = Field(1.0, gt=0, description="factor on the channels of every layer, which are 64 to 512 at first")
    stem_stride: Literal[1, 2] = Field(
        1, description="stride of the first convolution: 1 is MONAI's default; 2 takes an eighth of memory and time"
    )

    def build(self, in_channels: int, input_voxels: int | tuple[int, int, int]) -> ResNet:
        """Make the backbone, randomly initialized from torch's global generator, for inputs of any size.

        Args:
            in_channels: C.
            input_voxels: edge of the usual input; nothing depends on it.
        """
        return ResNet(self, in_channels)


class StagedNetwork(nn.Module):
    """A network whose `net` is MONAI's ResNet: a first convolution, then four stages."""

    @property
    def layers(self) -> int:
        """Layers for layer-wise learning rates: the first convolution, then the four stages."""
        return 1 + STAGES

    def layer_of(self, name: str) -> int:
        """Return the layer of a parameter, from 0."""
        part = name.removeprefix("net.").partition(".")[0]
        return int(part.removeprefix("layer")) if part.startswith("layer") else 0


class ResNet(StagedNetwork):
    """The backbone; made by `ResNetConfig.build`. The token for the scan is the mean of the last feature map.

    Attributes:
        config: what it was built from.
        in_channels: C.
        width: D, channels of the last feature map.
        net: MONAI's network, without its classifier.
    """

    def __init__(self, config: ResNetConfig, in_channels: int) -> None:
        from monai.networks.nets import resnet  # takes seconds to import

        super().__init__()
        self.config = config
        self.in_channels = in_channels
        build: Any = getattr(resnet, f"resnet{config.depth}")
        self.net: nn.Module = build(
            spatial_dims=3,
            n_input_channels=in_channels,
            feed_forward=False,
            conv1_t_stride=config.stem_stride,
            widen_factor=config.widen,
        )
        self.width: int = self.net.in_planes

    def stride_of(self, stage: int) -> int:
        """Return how many voxels of the input the places of a stage (1 to 4) are apart; the first is on voxel 0."""
        return int(2**stage) * self.config.stem_stride

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Turn windows into tokens.

        Args:
            x_BCZYX: (B, C, Z, Y, X) float windows in [0, 1], of any size; N is Z · Y · X / 16³, 32³ with a stem of 2.

        Returns:
            (B, 1 + N, D): the mean over all places, then the places in row-major order.
        """
        net: Any = self.net
        x = net.maxpool(net.act(net.bn1(net.conv1(x_BCZYX))))
        for stage in range(1, STAGES + 1):
            x = getattr(net, f"layer{stage}")(x)
        places_BND = x.flatten(2).transpose(1, 2)
        return torch.cat([places_BND.mean(1, keepdim=True), places_BND], dim=1)
