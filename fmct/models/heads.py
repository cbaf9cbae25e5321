"""What sits on the tokens: the DINO head, and the two probes.

Shapes: B scans, N tokens, D width, K prototypes, L labels, H heads.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from fmct.console.errors import UsageError
from fmct.experiment.config import Config
from fmct.models.blocks import INIT_STD, initialize_linear
from fmct.models.pooling import is_mirrored, pooled, pooled_width
from fmct.models.pooling_kinds import POOLING, Pooling

PROBE_NORM_EPS = 1e-6


class DINOHeadConfig(Config):
    """The projection head of DINO (Caron et al. 2021, arXiv 2104.14294, section 3.2 and appendix C)."""

    layers: int = Field(3, ge=2, description="linear layers before the prototypes")
    hidden: int = Field(2048, gt=0, description="width between them")
    bottleneck: int = Field(256, gt=0, description="width that is L2-normalized and compared with the prototypes")
    prototypes: int = Field(65_536, gt=1, description="number of prototypes")
    normalize_last_layer: bool = Field(True, description="prototypes of length 1; otherwise their lengths are learned")

    def build(self, width: int) -> DINOHead:
        """Make the head for CLS tokens of the given width."""
        return DINOHead(self, width)


class DINOHead(nn.Module):
    """An MLP, L2 normalization, and cosine similarities with prototypes.

    Only the directions of `prototypes` count: weight normalization (arXiv 1602.07868), done here as plain arithmetic on
    an ordinary parameter, so that copies, DDP and safetensors need no special care.

    Attributes:
        prototypes: (K, bottleneck) parameter, the layer that DINO freezes at first.
        prototype_lengths: (K, 1) parameter, or None when lengths are fixed at 1.
        called_methods: what is called besides `forward`, see `fmct.experiment.sharding.shard`.
    """

    called_methods: ClassVar[tuple[str, ...]] = ("factors",)

    def __init__(self, config: DINOHeadConfig, width: int) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = [nn.Linear(width, config.hidden), nn.GELU()]
        for _ in range(config.layers - 2):
            layers += [nn.Linear(config.hidden, config.hidden), nn.GELU()]
        self.mlp = nn.Sequential(*layers, nn.Linear(config.hidden, config.bottleneck))
        self.prototypes = nn.Parameter(torch.empty(config.prototypes, config.bottleneck))
        self.register_parameter("prototype_lengths", None)
        if not config.normalize_last_layer:
            self.prototype_lengths = nn.Parameter(torch.ones(config.prototypes, 1))
        self.mlp.apply(initialize_linear)
        nn.init.trunc_normal_(self.prototypes, std=INIT_STD)

    def no_decay_names(self) -> set[str]:
        """Name the parameters of two and more dimensions that weight decay should leave alone."""
        return set() if self.prototype_lengths is None else {"prototype_lengths"}

    def last_layer(self) -> list[nn.Parameter]:
        """Return what DINO freezes at first: the prototypes, and their lengths where they are learned."""
        return [self.prototypes] if self.prototype_lengths is None else [self.prototypes, self.prototype_lengths]

    def factors(self, tokens_RD: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the logits are the product of: (R, bottleneck) of length 1, (K, bottleneck)."""
        embedding = F.normalize(self.mlp(tokens_RD).float(), dim=-1)
        weight = F.normalize(self.prototypes.float(), dim=-1)
        return embedding, weight if self.prototype_lengths is None else weight * self.prototype_lengths

    def forward(self, tokens_RD: Tensor) -> Tensor:
        """Compare tokens (R, D) with the prototypes: (R, K) cosines, times the lengths where they are learned."""
        return F.linear(*self.factors(tokens_RD))


class LinearHeadConfig(Config):
    """A linear probe on one vector per scan."""

    kind: Literal["linear"] = "linear"
    pooling: Pooling = Field("cls", description=POOLING)

    def build(self, width: int, labels: int, prefix_tokens: int = 1) -> LinearHead:
        """Make the head for tokens of the given width, `prefix_tokens` of them before the patches."""
        return LinearHead(width, labels, self.pooling, prefix_tokens)


class LinearHead(nn.Module):
    """Batch normalization without affine parameters, then one linear layer, on pooled tokens.

    Attributes:
        mirrored: whether `forward` takes the tokens of mirror images, too, see `fmct.models.pooling.encode`.
    """

    def __init__(self, width: int, labels: int, pooling: Pooling = "cls", prefix_tokens: int = 1) -> None:
        super().__init__()
        self.pooling = pooling
        self.prefix_tokens = prefix_tokens
        self.mirrored = is_mirrored(pooling)
        features = pooled_width(width, pooling)
        self.norm = nn.BatchNorm1d(features, affine=False, eps=PROBE_NORM_EPS)
        self.linear = nn.Linear(features, labels)
        self.apply(initialize_linear)

    def forward(self, tokens: Tensor) -> Tensor:
        """Turn tokens (B, N, D), the scan's first, or what was pooled from them, (B, D), into logits (B, L)."""
        pooled_BD = pooled(tokens, self.pooling, self.prefix_tokens) if tokens.ndim == 3 else tokens
        logits_BL: Tensor = self.linear(self.norm(pooled_BD))
        return logits_BL


class AttentiveHeadConfig(Config):
    """An attentive probe on all tokens."""

    kind: Literal["attentive"] = "attentive"
    heads: int = Field(12, gt=0, description="attention heads; divide the backbone's width")
    mirror: bool = Field(
        False, description="read beside each token how far it is from that of the scan's mirror image; twice the time"
    )

    def build(self, width: int, labels: int, prefix_tokens: int = 1) -> AttentiveHead:
        """Make the head for tokens of the given width, all of which it pools, and as many outputs as there are labels.

        Raises:
            UsageError: when `heads` doesn't divide the width.
        """
        if width % self.heads:
            raise UsageError(
                f"{self.heads} heads don't divide the backbone's width {width}",
                "heads of the attentive head",
                f"choose one of {[h for h in range(1, 25) if width % h == 0]}",
            )
        return AttentiveHead(width, labels, self.heads, mirrored=self.mirror)


class AttentiveHead(nn.Module):
    """Batch normalization, attention pooling by one learned query, batch normalization, one linear layer.

    Scores are divided by a head's width, not by its root: the published one scales twice, and its weights expect that.

    Attributes:
        mirrored: whether `forward` takes the tokens of mirror images, too, see `fmct.models.pooling.encode`.
    """

    def __init__(self, width: int, labels: int, heads: int, *, mirrored: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.mirrored = mirrored
        width = 2 * width if mirrored else width
        self.query = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, width), std=INIT_STD))
        self.norm_tokens = nn.BatchNorm1d(width, affine=False, eps=PROBE_NORM_EPS)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.norm_pooled = nn.BatchNorm1d(width, affine=False, eps=PROBE_NORM_EPS)
        self.linear = nn.Linear(width, labels)
        self.apply(initialize_linear)

    def no_decay_names(self) -> set[str]:
        """Name the parameters of two and more dimensions that weight decay should leave alone."""
        return {"query"}

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Pool tokens (B, N, D), or (B, N, 2 D) if `mirrored`, into logits (B, L)."""
        if self.mirrored:
            tokens_BND = beside_the_difference(tokens_BND)
        batch, tokens, width = tokens_BND.shape
        per_head = width // self.heads
        normalized_BND = self.norm_tokens(tokens_BND.transpose(1, 2)).transpose(1, 2)
        key_value = self.key_value(normalized_BND).reshape(batch, tokens, 2, self.heads, per_head)
        key, value = key_value.permute(2, 0, 3, 1, 4).unbind(0)
        query = self.query.reshape(1, self.heads, 1, per_head).expand(batch, -1, -1, -1).to(key.dtype)
        pooled = F.scaled_dot_product_attention(query, key, value, scale=1 / per_head)
        logits_BL: Tensor = self.linear(self.norm_pooled(pooled.reshape(batch, width)))
        return logits_BL


def beside_the_difference(tokens_BN2D: Tensor) -> Tensor:
    """Turn tokens beside those of the mirror image into tokens beside how far the two are apart: (B, N, 2 D) both."""
    own_BND, mirrored_BND = tokens_BN2D.chunk(2, -1)
    return torch.cat([own_BND, (own_BND - mirrored_BND).abs()], -1)


HeadConfig = Annotated[LinearHeadConfig | AttentiveHeadConfig, Field(discriminator="kind")]
