"""What leaves the house: the card and its figures, the gate before a release, the hub."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import REPOSITORY, TinyCohort, make_cohort
from random_packages import random_package

import fmct
from fmct.cli import main
from fmct.console.errors import FmctError, UsageError
from fmct.data.volumes import Volume, VolumeCache
from fmct.evaluation.predictions import write_predictions
from fmct.evaluation.summary import summarize
from fmct.experiment.loading import as_record, load_experiment
from fmct.models.package_files import check_sums
from fmct.release.card import cell, flat
from fmct.release.hub import push
from fmct.release.training_facts import read_facts, without_paths

EVIL = "<script>alert(1)</script>|x"


def write_run(cohort: TinyCohort, runs: Path, name: str, *more: str, mode: str = "scratch") -> Path:
    """A run's folder as a finished run leaves it, with random weights."""
    flags = ["--data.manifest", str(cohort.manifest), "--data.cache", str(cohort.cache), "--trainer.runs", str(runs)]
    flags += ["--input.voxels", "24", "--name", name, "--task.mode", mode, "--task.labels", "ICH"]
    flags += ["--backbone.width", "24", "--backbone.depth", "1", "--backbone.heads", "2"]
    weights = [] if "--task.weights" in more else ["--task.weights", "null"]
    experiment = load_experiment([REPOSITORY / "experiments" / "classify_smoke.yaml"], [*flags, *weights, *more])
    folder = runs / name
    random_package(experiment, cohort.cache, folder / "weights")
    (folder / "experiment.yaml").write_text(yaml.safe_dump(as_record(experiment)))
    return folder


def write_evaluation(run: Path, cohort: TinyCohort, split: str) -> None:
    rows = pd.read_csv(cohort.manifest, dtype=str).query("split == @split")
    target = rows["label:ICH"].astype(float)
    score = np.clip(target * 0.6 + np.linspace(0, 0.39, len(rows)), 0, 1)
    frame = rows[["scan_id", "patient_id"]].assign(label="ICH", target=target, probability=score)
    folder = run / "evaluations" / split
    write_predictions(frame.reset_index(drop=True), folder / "predictions.parquet")
    (folder / "metrics.json").write_text(json.dumps(summarize(frame, bootstrap=100)))


@pytest.fixture(scope="module")
def defaced(tmp_path_factory: pytest.TempPathFactory) -> TinyCohort:
    """A cohort whose cache says that faces were removed, and whose headers say what no page should run."""
    cohort = make_cohort(tmp_path_factory.mktemp("defaced"))
    frame = pd.read_csv(cohort.manifest, dtype=str).assign(manufacturer="ACME", model=EVIL)
    frame.to_csv(cohort.manifest, index=False)
    plain = VolumeCache.open(cohort.cache)
    made = VolumeCache.create(cohort.cache.parent / "faceless", plain.settings.model_copy(update={"deface": True}))
    for scan_id in plain.index.index:
        made.write(scan_id, Volume(plain.read(scan_id), np.diag([9.0, 9.0, 9.0, 1.0])))
    made.save()
    return TinyCohort(cohort.manifest, made.folder)


def test_the_card_says_what_the_weights_saw_and_names_nobody(defaced: TinyCohort, tmp_path: Path) -> None:
    run = write_run(defaced, tmp_path / "runs", "shown")
    write_evaluation(run, defaced, "test")
    assert main(["export", str(run), "--out", str(tmp_path / "w"), "--for-release"]) == 0
    card, facts = (tmp_path / "w" / "MODEL_CARD.md").read_text(), (tmp_path / "w" / "training.json").read_text()
    assert "12 scans of 6 patients" in card
    assert "| site_a | 6 |" in card
    assert "Faces were removed before training" in card
    assert "&lt;script&gt;" in card
    assert "<script" not in card
    assert "| ICH | 6 (3) | 1.000 (" in card
    assert "no diagnosis may rest on it" in card
    assert "| spacing_mm | 9.0 |" in card
    assert "Passed: faces removed" in card
    for secret in ("scan0", "patient0", str(tmp_path), str(defaced.manifest.parent), "/tmp"):
        assert secret not in card
        assert secret not in facts
    read = read_facts(tmp_path / "w")
    assert read is not None
    assert read.by_scanner == {f"ACME {EVIL}": 12}
    assert read.configuration["optimizer"]["lr"] == 1e-3
    check_sums(tmp_path / "w")
    assert "training.json" in (tmp_path / "w" / "SHA256SUMS").read_text()
    assert fmct.load(tmp_path / "w").config.name == "random"


def test_scans_with_faces_are_not_released_unless_told_so(
    tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = write_run(tiny, tmp_path / "runs", "faces"), tmp_path / "w"
    release = ["export", str(run), "--out", str(out), "--for-release"]
    assert main(release) == 1
    assert "the cache that faces learned from wasn't defaced" in capsys.readouterr().err
    assert not out.exists()
    assert main([*release, "--i-know"]) == 0
    assert "**Released in spite of:**\n\n* the cache that faces learned" in (out / "MODEL_CARD.md").read_text()


def test_what_the_weights_began_with_counts_too(
    tiny: TinyCohort, defaced: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parent = write_run(tiny, tmp_path / "runs", "before")
    run = write_run(defaced, tmp_path / "runs", "after", "--task.weights", str(parent / "weights"), mode="finetune")
    assert main(["export", str(run), "--out", str(tmp_path / "w"), "--for-release"]) == 1
    err = capsys.readouterr().err
    assert "the cache that before learned from wasn't defaced" in err
    assert "that after learned" not in err
    assert main(["export", str(run), "--out", str(tmp_path / "w")]) == 0
    assert "began with the weights of before" in (tmp_path / "w" / "MODEL_CARD.md").read_text()

    carried = tmp_path / "carried"  # a package away from its run says itself what it learned from
    assert main(["export", str(parent), "--out", str(carried)]) == 0
    again = write_run(defaced, tmp_path / "runs", "again", "--task.weights", str(carried), mode="finetune")
    assert main(["export", str(again), "--out", str(tmp_path / "w2"), "--for-release"]) == 1
    assert "wasn't defaced" in capsys.readouterr().err
    (carried / "config.json").unlink()
    assert main(["export", str(again), "--out", str(tmp_path / "w3"), "--for-release"]) == 1
    assert "weights that are gone learned from isn't known" in capsys.readouterr().err


def test_patient_in_two_splits_of_two_manifests_is_not_released(
    defaced: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = defaced.manifest.with_name("other.csv")
    frame = pd.read_csv(defaced.manifest, dtype=str)
    frame["split"] = np.where(frame["patient_id"] == "patient010", "train", frame["split"])  # in test there
    frame.to_csv(other, index=False)
    parent = write_run(TinyCohort(other, defaced.cache), tmp_path / "runs", "leaking")
    run = write_run(defaced, tmp_path / "runs", "r", "--task.weights", str(parent / "weights"), mode="finetune")
    write_evaluation(run, defaced, "test")
    assert main(["export", str(run), "--out", str(tmp_path / "w"), "--for-release"]) == 1
    err = capsys.readouterr().err
    assert "1 patients are in two splits" in err
    assert "1 of the 3 patients in the evaluation test are among those it learned from" in err
    assert "patient010" not in err


def test_an_evaluation_on_training_patients_is_not_released(
    defaced: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(defaced, tmp_path / "runs", "seen")
    write_evaluation(run, defaced, "train")
    assert main(["export", str(run), "--out", str(tmp_path / "w"), "--for-release"]) == 1
    assert "6 of the 6 patients in the evaluation train" in capsys.readouterr().err


def test_a_run_whose_scans_are_gone_is_exported_and_not_released(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = make_cohort(tmp_path / "gone")
    run = write_run(cohort, tmp_path / "runs", "gone")
    cohort.manifest.unlink()
    assert main(["export", str(run), "--out", str(tmp_path / "w")]) == 0
    assert "isn't known" in capsys.readouterr().err
    assert "isn't known here" in (tmp_path / "w" / "MODEL_CARD.md").read_text()
    assert main(["export", str(run), "--out", str(tmp_path / "w2"), "--for-release"]) == 1


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--i-know"], "--i-know means nothing without --for-release"),
        (["--push-to-hub", "me/x"], "add --for-release"),
        (["--push-to-hub", "me", "--for-release"], "names no repository"),
        (["--public"], "--public means nothing"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(
    flags: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "w"), *flags]) == 2
    assert expected in capsys.readouterr().err


class FakeHub:
    """Remembers what it was sent."""

    def __init__(self, error: Exception | None = None) -> None:
        self.sent: list[tuple[str, dict[str, object]]] = []
        self.error = error

    def create_repo(self, repo_id: str, **more: object) -> None:
        if self.error:
            raise self.error
        self.sent.append(("create_repo", {"repo_id": repo_id, **more}))

    def upload_folder(self, **given: object) -> None:
        self.sent.append(("upload_folder", given))

    def upload_file(self, **given: object) -> None:
        self.sent.append(("upload_file", given))


def test_only_the_files_of_the_package_are_sent(tiny: TinyCohort, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    run = write_run(tiny, tmp_path / "runs", "sent")
    package = run / "weights"
    (package / "notes.txt").write_text("not for others")
    hub = FakeHub()
    push(package, "me/brain", private=True, hub=hub)
    assert [name for name, _ in hub.sent] == ["create_repo", "upload_folder", "upload_file"]
    assert hub.sent[0][1] == {"repo_id": "me/brain", "private": True, "exist_ok": True}
    assert set(hub.sent[1][1]["allow_patterns"]) == {  # type: ignore[call-overload]
        "model.safetensors", "config.json", "MODEL_CARD.md", "SHA256SUMS",
    }  # fmt: skip
    assert hub.sent[2][1]["path_in_repo"] == "README.md"
    with pytest.raises(FmctError, match="wasn't sent: no route"):
        push(package, "me/brain", private=True, hub=FakeHub(OSError("no route")))
    (package / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="doesn't match its checksum"):
        push(package, "me/brain", private=True, hub=hub)


def test_values_with_paths_are_left_out_wherever_they_are() -> None:
    values = {"a": Path("x"), "b": {"c": Path("y"), "d": 1}, "e": (Path("z"),), "f": [1, 2], "g": [{"h": Path("q")}]}
    assert without_paths(values) == {"b": {"d": 1}, "f": [1, 2], "g": [{}]}


def test_cells_hold_no_markup() -> None:
    assert cell("a|b\n<i>*x*_y_`") == r"a&#124;b &lt;i&gt;\*x\*_y_\`"
    assert flat({"a": None, "b": [1, "x"], "c": {"d": 0.5, "e": None}}) == "b \\[1, x\\], c.d 0.5"
