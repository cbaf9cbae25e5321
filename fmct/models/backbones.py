"""The backbones that experiments can choose: a new one is a module beside this one and its names here.

What a backbone is to the rest: a module with `width` and `config`, whose `forward` takes windowed views (B, C, Z, Y, X)
of any size that its `config.patch_voxels` divides, and gives tokens (B, N, width) after the final norm, the one that
stands for the scan first.
"""

from __future__ import annotations

from fmct.models.vit3d import ViT3D, ViT3DConfig

BackboneConfig = ViT3DConfig
Backbone = ViT3D
