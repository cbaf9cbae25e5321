"""Files from anybody: nothing in them is ever run or fetched. More of the kind, where each is read:

`../` and links in a manifest: test_manifest; bombs and crafted headers: test_hostile_files; caches: test_cache_files;
markup in headers and names: test_report, test_qc, test_release; YAML tags in experiments: test_experiment.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import TinyCohort
from random_packages import random_package
from test_release import write_run

import fmct
from fmct.cli import main
from fmct.console.errors import UsageError
from fmct.data.feature_table import read_features
from fmct.experiment.loading import from_record
from fmct.experiment.run_record import read_experiment
from fmct.models.package_files import CONFIG, SUMS, WEIGHTS, write_sums


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.proof,))


def write_payload(path: Path, proof: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": Payload(proof)}))
    pickle.loads(path.read_bytes())  # it works,
    assert proof.exists()
    proof.unlink()  # so that it would show


def test_pickle_payload_as_weights(tiny: TinyCohort, tmp_path: Path) -> None:
    run = write_run(tiny, tmp_path / "runs", "r")
    for write in (write_payload, lambda path, proof: torch.save({"a": Payload(proof)}, path)):
        write(run / "weights" / WEIGHTS, tmp_path / "proof")
        write_sums(run / "weights")
        with pytest.raises(UsageError, match="not a safetensors file"):
            fmct.load(run / "weights")
        assert not (tmp_path / "proof").exists()


def test_pickle_payload_as_checkpoint(tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tiny, tmp_path / "runs", "r")
    (run / "weights" / CONFIG).unlink()
    (run / "checkpoints").mkdir()
    for write in (write_payload, lambda path, proof: torch.save({"a": Payload(proof)}, path)):
        write(run / "checkpoints" / "last.ckpt", tmp_path / "proof")
        assert main(["export", str(run), "--out", str(tmp_path / "w")]) in {1, 2}  # no zip file, or none of tensors
        assert "can't be read" in capsys.readouterr().err
        assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_pickle_payload_as_features_and_manifest(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"table{suffix}"
    write_payload(path, tmp_path / "proof")
    with pytest.raises(UsageError):
        read_features([path])
    assert main(["split", str(path), "--out", str(tmp_path / "out.csv")]) == 2
    assert not (tmp_path / "proof").exists()


def test_yaml_tag_in_a_run_is_refused(tiny: TinyCohort, tmp_path: Path) -> None:
    run = write_run(tiny, tmp_path / "runs", "r")
    tag = f"!!python/object/apply:pathlib.Path.touch [{tmp_path / 'proof'}]"
    (run / "experiment.yaml").write_text(f"name: {tag}\n")
    with pytest.raises(UsageError, match="can't be read"):
        read_experiment(run)
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(f"name: {tag}\ngrid: {{seed: [1]}}\n")
    assert main(["sweep", str(sweep)]) == 2
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("url", ["https://example.org/weights", "hf://someone/brain", "file:///etc", "s3://b/k"])
def test_url_as_weights_is_refused(
    tiny: TinyCohort, tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="never fetched from a URL"):
        fmct.load(url)
    assert main(["embed", str(tiny.cache), "--weights", url, "--out", str(tmp_path / "e.parquet")]) == 2
    assert "never fetched from a URL" in capsys.readouterr().err


def test_weights_without_a_checksum_are_refused(tiny: TinyCohort, tmp_path: Path) -> None:
    folder = random_package(from_record(read_experiment(write_run(tiny, tmp_path, "r"))), tiny.cache, tmp_path / "w")
    lines = (folder / SUMS).read_text().splitlines()
    for name in (WEIGHTS, CONFIG):
        (folder / SUMS).write_text("".join(f"{line}\n" for line in lines if not line.endswith(name)))
        with pytest.raises(UsageError, match=f"no checksum of {name}"):
            fmct.load(folder)
    (folder / SUMS).write_text("\n".join([*lines, f"{'0' * 64}  ../../etc/passwd"]))
    with pytest.raises(UsageError, match="doesn't exist"):  # only files of the package are looked at
        fmct.load(folder)


def test_markup_in_a_study_description_stays_text(tiny: TinyCohort, tmp_path: Path) -> None:
    """What headers say gets into a card and its figures as text."""
    frame = pd.read_csv(tiny.manifest, dtype=str).assign(site="<script>alert(1)</script>", manufacturer="[x](http://y)")
    manifest = tmp_path / "m.csv"
    frame.to_csv(manifest, index=False)
    run = write_run(TinyCohort(manifest, tiny.cache), tmp_path / "runs", "r")
    assert main(["export", str(run), "--out", str(tmp_path / "w")]) == 0
    card = (tmp_path / "w" / "MODEL_CARD.md").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in card
    assert "<script" not in card
    assert "[x](" not in card
