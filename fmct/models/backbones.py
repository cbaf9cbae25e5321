"""The backbones that experiments can choose: a new one is a module beside this one and its names here.

What a backbone is to the rest: a module with `width` and `config`, whose `forward` takes windowed views (B, C, Z, Y, X)
of any size that its `config.patch_voxels`, if it has patches, divides, and gives tokens (B, N, width), the one that
stands for the scan first. What it may have besides:

* `blocks`, an nn.ModuleList: its repeated parts, which are compiled and divided among processes one by one;
* `layers` and `layer_of(name)`: the number of its layers and the one that a parameter belongs to, for
  `optimizer.layer_decay`;
* `no_decay_names()`: parameters of two and more dimensions that weight decay should leave alone.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from fmct.models.cnn import ResNet, ResNetConfig
from fmct.models.ctfm import CTFM, CTFMConfig
from fmct.models.features import Features, FeaturesConfig
from fmct.models.merlin import Merlin, MerlinConfig
from fmct.models.vit3d import ViT3D, ViT3DConfig

ForeignConfig = CTFMConfig | MerlinConfig | FeaturesConfig
Foreign = CTFM | Merlin | Features
BackboneConfig = Annotated[ViT3DConfig | ResNetConfig | ForeignConfig, Field(discriminator="kind")]
Backbone = ViT3D | ResNet | Foreign


def repeated_blocks(module: nn.Module) -> list[nn.Module]:
    """List the blocks of all parts of a module that have any: backbones and decoders."""
    found = [getattr(part, "blocks", None) for part in module.modules()]
    return [block for blocks in found if isinstance(blocks, nn.ModuleList) for block in blocks]
