import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fmct.console.errors import UsageError
from fmct.models.heads import AttentiveHeadConfig, DINOHeadConfig, LinearHeadConfig

SIZES = {"hidden": 20, "bottleneck": 8, "prototypes": 30}


def features(batch: int = 6, tokens: int = 5, width: int = 24) -> torch.Tensor:
    return 1 + torch.randn(batch, tokens, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layers", [2, 3, 5])
def test_dino_logits_are_cosines_with_prototypes(layers: int) -> None:
    head, x = DINOHeadConfig(layers=layers, **SIZES).build(24), features()[:, 0]
    assert sum(isinstance(m, nn.Linear) for m in head.mlp) == layers
    embedding, prototypes = head.mlp(x).detach().numpy(), head.prototypes.detach().numpy()
    cosines = [[e @ p / np.linalg.norm(e) / np.linalg.norm(p) for p in prototypes] for e in embedding]
    np.testing.assert_allclose(head(x).detach().numpy(), cosines, atol=1e-6)


def test_only_directions_of_prototypes_count() -> None:
    head, x = DINOHeadConfig(**SIZES).build(24), features()[:, 0]
    before = head(x)
    with torch.no_grad():
        head.prototypes.mul_(torch.rand(30, 1) + 0.5)
    torch.testing.assert_close(head(x), before)


def test_learned_lengths_scale_the_cosines() -> None:
    fixed = DINOHeadConfig(**SIZES).build(24)
    free = DINOHeadConfig(**SIZES, normalize_last_layer=False).build(24)
    assert {n for n, _ in free.named_parameters()} - {n for n, _ in fixed.named_parameters()} == {"prototype_lengths"}
    assert (fixed.no_decay_names(), free.no_decay_names()) == (set(), {"prototype_lengths"})
    lengths = torch.rand(30, 1)
    free.load_state_dict(fixed.state_dict() | {"prototype_lengths": lengths})
    torch.testing.assert_close(free(features()[:, 0]), fixed(features()[:, 0]) * lengths.T)


@pytest.mark.parametrize("normalized", [True, False])
def test_dino_head_survives_copy_state_and_safetensors(tmp_path: Path, normalized: bool) -> None:
    config = DINOHeadConfig(**SIZES, normalize_last_layer=normalized)
    head, x = config.build(24), features()[:, 0]
    head(x).sum().backward()
    twin = copy.deepcopy(head)
    assert torch.equal(twin(x), head(x))
    with torch.no_grad():
        twin.prototypes.neg_()
    torch.testing.assert_close(twin(x), -head(x))
    save_file(head.state_dict(), tmp_path / "head.safetensors")
    fresh = config.build(24)
    fresh.load_state_dict(load_file(tmp_path / "head.safetensors"))
    assert torch.equal(fresh(x), head(x))


@pytest.mark.parametrize(
    "head",
    [
        DINOHeadConfig(**SIZES).build(24),
        DINOHeadConfig(**SIZES, normalize_last_layer=False).build(24),
        LinearHeadConfig().build(24, 3),
        AttentiveHeadConfig().build(24, 3),
    ],
    ids=["dino", "dino_lengths", "linear", "attentive"],
)
def test_gradient_reaches_every_parameter(head: nn.Module) -> None:
    x = features() if not hasattr(head, "prototypes") else features()[:, 0]
    output = head(x)
    (output * torch.randn(output.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    assert [n for n, p in head.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_linear_head_normalizes_cls() -> None:
    head, x = LinearHeadConfig().build(24, 3), features()
    assert len(list(head.parameters())) == 2, "batch normalization has no affine parameters"
    cls = x[:, 0].numpy().astype(np.float64)
    normalized = (cls - cls.mean(0)) / np.sqrt(cls.var(0) + 1e-6)
    expected = normalized @ head.linear.weight.detach().numpy().T + head.linear.bias.detach().numpy()
    np.testing.assert_allclose(head(x).detach().numpy(), expected, atol=1e-5)
    assert torch.equal(head.eval()(x), head(x[:, 0]))


def test_attentive_head_follows_numpy() -> None:
    head, x = AttentiveHeadConfig(heads=4).build(24, 3), features()
    tokens = x.numpy().astype(np.float64)
    normalized = (tokens - tokens.mean((0, 1))) / np.sqrt(tokens.var((0, 1)) + 1e-6)
    key_value = normalized @ head.key_value.weight.detach().numpy().T
    query = head.query.detach().numpy()[0, 0]
    pooled = np.empty((6, 24))
    for b in range(6):
        for h in range(4):
            own = slice(6 * h, 6 * h + 6)
            scores = np.exp(key_value[b, :, :24][:, own] @ query[own] / 6)
            pooled[b, own] = scores / scores.sum() @ key_value[b, :, 24:][:, own]
    pooled = (pooled - pooled.mean(0)) / np.sqrt(pooled.var(0) + 1e-6)
    expected = pooled @ head.linear.weight.detach().numpy().T + head.linear.bias.detach().numpy()
    np.testing.assert_allclose(head(x).detach().numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("config", [LinearHeadConfig(), AttentiveHeadConfig()])
def test_scores_in_evaluation_do_not_depend_on_batch_mates(config: LinearHeadConfig | AttentiveHeadConfig) -> None:
    head, x = config.build(24, 2), features()
    head(x)
    head.eval()
    torch.testing.assert_close(head(x), torch.cat([head(x[i : i + 1]) for i in range(6)]))


@pytest.mark.parametrize("config", [LinearHeadConfig(), AttentiveHeadConfig()])
def test_probes_run_under_autocast(config: LinearHeadConfig | AttentiveHeadConfig) -> None:
    head, x = config.build(24, 2), features()
    plain = head(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert (head(x).float() - plain).abs().max() < 0.1
        assert (head(x.bfloat16()).float() - plain).abs().max() < 0.1


def test_attention_heads_must_divide_the_width() -> None:
    with pytest.raises(UsageError, match=r"7 heads don't divide[\s\S]*\[1, 2, 3, 4, 6, 8, 12, 24\]"):
        AttentiveHeadConfig(heads=7).build(24, 2)
