"""LayerCAM: where a convolutional network's feature maps count for an output.

Jiang et al. 2021, "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization", IEEE TIP 30, 5875-5888,
equations 6 and 7. MONAI has CAM and Grad-CAM, which weigh whole channels and so are of use on the last layer only.

Shapes: B scans, C channels, (z, y, x) places of a feature map.
"""

from __future__ import annotations

from torch import Tensor


def layer_cam(features: Tensor, gradients: Tensor) -> Tensor:
    """Weigh every activation by its own gradient, where that is positive, and sum over channels.

    Args:
        features: (B, C, z, y, x) activations of a layer.
        gradients: of the sum over scans of an output with respect to them.

    Returns:
        (B, z, y, x) float32, not negative.
    """
    return (features.float() * gradients.float().clamp(min=0)).sum(1).clamp(min=0)
