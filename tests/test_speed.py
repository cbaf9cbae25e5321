"""What a run says of its speed: operations, waiting for data, the device's peak, and the time left."""

from __future__ import annotations

import io
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import TIMED, TinyCohort
from rich.console import Console
from rich.text import Text
from test_nan_guard import arguments
from torch import nn

from fmct.callbacks.peak_flops import gpu_peak_flops, measured_flops, peak_flops
from fmct.callbacks.run_progress import BarProgress, PlainProgress
from fmct.callbacks.step_flops import StepFlops
from fmct.data.dataset import ScanDataset
from fmct.fit import main
from fmct.models.blocks import Block


def counted(work: Any) -> int:
    flops = StepFlops()
    flops.begin()
    work()
    return flops.end()


def test_operations_of_a_block_are_counted_forward_and_backward() -> None:
    B, N, D, heads = 2, 10, 12, 3
    block = Block(D, heads, 4.0, 1e-6)
    x = torch.randn(B, N, D, requires_grad=True)
    products = B * N * (3 * D * D + D * D + 2 * 4 * D * D)  # qkv, projection, MLP; in multiplications
    attention = 2 * B * N * N * D
    assert counted(lambda: block(x)) == 2 * (products + attention)
    # backward: twice the products; attention five products instead of two, as scores are computed once more
    assert counted(lambda: block(x).sum().backward()) == 2 * (3 * products + attention + attention * 5 // 2)


def test_counting_changes_no_bit() -> None:
    torch.manual_seed(0)
    block, x = Block(12, 3, 4.0, 1e-6), torch.randn(2, 10, 12)
    block(x).square().sum().backward()
    plain = [p.grad.clone() for p in block.parameters() if p.grad is not None]
    block.zero_grad()
    counted(lambda: block(x).square().sum().backward())
    assert all(torch.equal(p.grad, g) for p, g in zip(block.parameters(), plain, strict=True))


def test_what_is_compiled_is_counted_too() -> None:
    layer = nn.Linear(8, 4)
    compiled = torch.compile(lambda x: F.relu(layer(x)), backend="eager")
    assert counted(lambda: compiled(torch.ones(3, 8))) == 2 * 3 * 8 * 4


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989.5),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", None),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_a_gpus_peak_is_known_or_not_made_up(name: str, tflops: float | None) -> None:
    assert gpu_peak_flops(name) == (None if tflops is None else 1e12 * tflops)


def test_a_cpus_peak_is_measured() -> None:
    matrix = torch.ones(512, 512)
    start = time.process_time()
    matrix @ matrix
    reached = 2 * 512**3 / (time.process_time() - start)
    assert measured_flops(torch.float32) > 0.1 * reached  # other work on the machine slows either
    assert peak_flops(torch.device("cpu"), torch.float32) is not None
    assert peak_flops(torch.device("meta"), torch.float32) is None


def test_speed_is_logged_and_adds_up(tiny: TinyCohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = ScanDataset.__getitems__

    def slow(self: ScanDataset, draws: Any) -> Any:
        time.sleep(0.2)
        return reading(self, draws)

    monkeypatch.setattr(ScanDataset, "__getitems__", slow)
    more = ("--data.batch_size", "3", "--trainer.max_steps", "8", "--trainer.log_every_steps", "2")
    assert main(arguments(tiny, tmp_path, "mae", *more)) == 0
    table = pd.read_csv(tmp_path / "pretrain_mae_smoke" / "metrics.csv")
    speed = table[["step", *(name for name in table if name.startswith("train/"))]].dropna()
    assert speed["step"].tolist() == [3, 5, 7]  # the first two steps warm up
    waited = speed["train/data_wait"] * 3 / speed["train/scans_per_second"]  # seconds per step
    assert (waited > 0.19).all()
    assert (speed["train/data_wait"] < 1).all()
    expected = speed["train/tflop_per_scan"] * speed["train/scans_per_second"]
    pd.testing.assert_series_equal(speed["train/tflops"], expected, check_names=False, rtol=1e-5)
    peak = speed["train/tflops"] / speed["train/mfu"]
    assert peak.max() / peak.min() == pytest.approx(1, rel=1e-4)


def test_logging_seldom_writes_the_same_numbers(tiny: TinyCohort, tmp_path: Path) -> None:
    tables = []
    for every in ("1", "3"):
        more = ("--data.batch_size", "3", "--trainer.max_steps", "7", "--trainer.log_every_steps", every)
        assert main(arguments(tiny, tmp_path / every, "dino", *more)) == 0
        tables.append(pd.read_csv(tmp_path / every / "pretrain_dino_smoke" / "metrics.csv").set_index("step"))
    always, seldom = (table[[name for name in table if name not in TIMED]] for table in tables)
    assert seldom.index.tolist() == [2, 5, 6]  # every third, and the last
    pd.testing.assert_frame_equal(seldom, always.loc[[2, 5, 6], seldom.columns])
    assert {"lr", "weight_decay", "gradient_norm", "teacher_temperature", "ema_momentum"} <= {
        name.removeprefix("train/") for name in seldom
    }


def test_time_left_is_that_of_the_whole_run() -> None:
    progress = PlainProgress()
    progress.total_steps = 100
    assert progress.seconds_left(40, 0.0) is None
    progress.measured_from = (20, 1000.0)
    assert progress.seconds_left(40, 1010.0) == pytest.approx(10 / 20 * 60)


def test_plain_lines_come_at_once_and_then_seldom(
    tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tiny, tmp_path, "mae", "--trainer.max_steps", "6")) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert [line.split(":")[0] for line in lines] == [
        *("epoch 0 step 0 of 6", "epoch 0 step 1 of 6", "epoch 2 step 6 of 6")
    ]
    assert "loss" in lines[1]
    assert "scans/s" in lines[2]


def test_the_bar_shows_loss_speed_and_time_left() -> None:
    screen = io.StringIO()
    bar = BarProgress(seconds_between=0.0, console=Console(file=screen, force_terminal=True, width=120))
    trainer: Any = SimpleNamespace(
        global_step=10,
        current_epoch=3,
        callback_metrics={"train/loss": torch.tensor(0.25), "train/scans_per_second": torch.tensor(12.5)},
    )
    bar.total_steps = 40
    bar.begin(trainer)
    bar.measured_from = (5, time.monotonic() - 10.0)
    bar.show(trainer, bar.state(trainer))
    bar.end()
    last = "epoch" + Text.from_ansi(screen.getvalue()).plain.split("epoch")[-1]
    assert "epoch 3" in last
    assert "10/40" in last
    assert "loss 0.250, 12.5 scans/s, 60 s left" in last
