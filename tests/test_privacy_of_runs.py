"""What identifies a patient doesn't get into runs either: checkpoints, weights, logs, pictures' labels, reports."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import REPOSITORY
from index_run import index
from synthetic_series import head_like, stacked, write_series

from fmct.cli import main

SECRETS = (b"DOE^", b"JOHN", b"MRN0012345", b"19610203", b"20190405")


def test_a_run_on_named_patients_names_none(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        write_series(tmp_path / "in" / f"{number}", head_like(seed=number), stacked(12), AccessionNumber="JOHN 7")
    planted = b"".join(path.read_bytes() for path in (tmp_path / "in").rglob("*.dcm"))
    assert all(secret in planted for secret in SECRETS)
    assert index(tmp_path / "in") == 0
    cache, runs, manifest = str(tmp_path / "cache"), str(tmp_path / "runs"), str(tmp_path / "m.csv")
    assert main(["preprocess", manifest, "--cache", cache, "--spacing-mm", "4.5", "--shape-voxels", "48"]) == 0
    config = str(REPOSITORY / "experiments" / "pretrain_mae_smoke.yaml")
    where = ["--data.manifest", manifest, "--data.cache", cache, "--trainer.runs", runs, "--data.val_splits", "[]"]
    assert main(["fit", "--config", config, *where]) == 0
    run = str(tmp_path / "runs" / "pretrain_mae_smoke")
    assert main(["report", run, "--out", str(tmp_path / "report.html")]) == 0
    assert main(["export", run, "--out", str(tmp_path / "package")]) == 0
    assert main(["qc", cache, "--manifest", manifest, "--out", str(tmp_path / "qc.html")]) == 0
    written = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(tmp_path / "in")]
    assert {".ckpt", ".safetensors", ".html", ".sqlite", ".b2nd"} <= {path.suffix for path in written}
    printed = "".join(capfd.readouterr()).encode()
    for secret in SECRETS:
        assert secret not in printed
        assert [path.name for path in written if secret in path.read_bytes()] == []
