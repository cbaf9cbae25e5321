"""Rotary positions in 3D: queries and keys are turned by angles that grow with a patch's place on each axis.

What one token makes of another then depends on how far they are apart, not on where they are (Su et al. 2021, arXiv
2104.09864; axial form for pictures: Heo et al. 2024, arXiv 2403.13298, section 3.2).

Places are counted in patches from the volume's first corner, not normalized to the view: views of different size show
more or less of a scan at the same millimeters per patch here, so that a distance turns by the same angle in all of
them. A view of another size needs no interpolation.

Shapes: B scans, H heads, N patches of a (Z, Y, X) grid in row-major order, T tokens, P pairs of a head's numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 100.0
"""Longest wavelength over 2π, in patches: grids of patches are short, sentences long (Heo et al. 2024, section 3.2)."""


def rotary_angles(head_width: int, grid_zyx: tuple[int, int, int], device: torch.device | None = None) -> Tensor:
    """Compute the angles of every patch; each axis turns a sixth of a head's width in pairs, what is left over stays.

    Args:
        head_width: numbers of a query, even and at least 6.
        grid_zyx: patches along each axis.
        device: where the angles are wanted.

    Returns:
        (N, P = head_width / 2) float32 radians.
    """
    per_axis = head_width // 6
    frequencies = TEMPERATURE ** (-torch.arange(per_axis, device=device) / per_axis)
    axes = torch.meshgrid(*(torch.arange(n, device=device) for n in grid_zyx), indexing="ij")
    angles_NP = torch.cat([axis.reshape(-1, 1) * frequencies for axis in axes], dim=1)
    return F.pad(angles_NP, (0, head_width // 2 - 3 * per_axis))


def rotation_of(angles_BNP: Tensor, prefix_tokens: int) -> Tensor:
    """Return what `rotate` takes: cosines and sines, with tokens before the patches that aren't turned.

    Args:
        angles_BNP: (B, N, P) angles; B may be 1, for all scans.
        prefix_tokens: tokens without a place: CLS and registers.

    Returns:
        (2, B, 1, T = prefix_tokens + N, P) float32.
    """
    angles_BTP = F.pad(angles_BNP, (0, 0, prefix_tokens, 0))
    return torch.stack([angles_BTP.cos(), angles_BTP.sin()])[:, :, None]


def rotate(x_BHTW: Tensor, rotation: Tensor) -> Tensor:
    """Turn queries or keys: number p and number p + P of a head are a point, turned about the origin.

    Args:
        x_BHTW: (B, H, T, 2 · P) of any floating type.
        rotation: from `rotation_of`.

    Returns:
        The same shape and type; lengths stay.
    """
    cos, sin = rotation.to(x_BHTW.dtype)
    first, second = x_BHTW.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
