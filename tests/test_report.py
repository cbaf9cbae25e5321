"""The report: says what the numbers say, shows what there is, keeps foreign text harmless, needs no network."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from page_elements import Elements
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from fmct.console.command import main
from fmct.console.errors import ExitCode, UsageError
from fmct.data.presets import IsotropicSettings
from fmct.data.rejection import RejectCode
from fmct.data.volumes import Volume, VolumeCache
from fmct.evaluation import wording
from fmct.evaluation.comparison import paired_difference
from fmct.evaluation.confidence import Bootstrap
from fmct.evaluation.curves import steps
from fmct.evaluation.descriptions import as_subject, run_labels
from fmct.evaluation.figures import looks
from fmct.evaluation.mean_differences import mean_difference
from fmct.evaluation.montage import brain_window, middle_slices, montage
from fmct.evaluation.page import make_report
from fmct.evaluation.predictions import read_predictions, write_predictions
from fmct.evaluation.results import gather, pairs
from fmct.evaluation.run_folder import read_run, read_runs
from fmct.evaluation.summary import summarize
from fmct.report import COMMAND

EVIL = "<script>alert(1)</script>"


def picture_bytes() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 8), 77, np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def make_run(root: Path, name: str, task: dict[str, Any], **data: Any) -> Path:
    """A run with nothing but its configuration."""
    folder = root / name
    folder.mkdir(parents=True)
    experiment = {"name": name, "seed": 1, "task": task, "backbone": {"kind": "vit3d"}, "data": data}
    (folder / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    return folder


def furnish(folder: Path, pictures: bool = False) -> Path:
    """Add what a finished run has beside its configuration."""
    environment = {"fmct": "0.1.0", "device": "CPU (2 threads)", "finished": True, "steps": 40, "seconds": 95.0}
    (folder / "environment.json").write_text(json.dumps(environment))
    rows = ["step,epoch,train/loss,train/scans_per_second,val/loss"]
    rows += [f"{step},0,{1 / (1 + step)},{20 + step},{0.5 if step % 10 == 0 else ''}" for step in range(0, 41, 5)]
    (folder / "metrics.csv").write_text("\n".join(rows))
    (folder / "weights").mkdir()
    (folder / "weights" / "SHA256SUMS").write_text("ab12  model.safetensors\n")
    if pictures:
        (folder / "pictures").mkdir()
        for picture in ("reconstruction_step000009.png", "reconstruction_step000100.png", "views_step000001.png"):
            (folder / "pictures" / picture).write_bytes(picture_bytes())
    return folder


def predictions(
    separation: float, labels: tuple[str, ...] = ("ICH",), n_patients: int = 60, shift: int = 0
) -> pd.DataFrame:
    """Two series per patient; the same scans, patients and noise whatever the separation."""
    generator = np.random.default_rng(0)
    frames = []
    for label in labels:
        target = np.repeat(np.arange(n_patients) % 3 == 0, 2).astype(float)
        logit = generator.normal(size=2 * n_patients) + separation * target
        frames.append(
            pd.DataFrame(
                {
                    "scan_id": [f"scan{i + shift}" for i in range(2 * n_patients)],
                    "patient_id": [f"patient{i // 2}" for i in range(2 * n_patients)],
                    "label": label,
                    "target": target,
                    "probability": 1 / (1 + np.exp(-logit)),
                    "split": "test",
                    "site": "site_b",
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def evaluate(folder: Path, frame: pd.DataFrame, name: str = "site_b", metrics: bool = True) -> Path:
    evaluation = folder / "evaluations" / name
    write_predictions(frame, evaluation / "predictions.parquet")
    if metrics:
        (evaluation / "metrics.json").write_text(json.dumps(summarize(frame, bootstrap=300)))
    return folder


def classifier(
    root: Path, name: str, frame: pd.DataFrame, weights: str | None = None, mode: str = "finetune", **data: Any
) -> Path:
    return evaluate(make_run(root, name, {"kind": "classifier", "mode": mode, "weights": weights}, **data), frame)


def report(*folders: Path, shown: int = 3) -> Any:
    return make_report(folders, "A report", Bootstrap(replicates=300), shown)


@pytest.fixture
def two_runs(tmp_path: Path) -> tuple[Path, Path]:
    scratch = classifier(tmp_path / "runs", "scratch", predictions(0.5))
    tuned = classifier(tmp_path / "runs", "finetune_mae", predictions(2.0), weights="runs/pretrain_mae/weights")
    return furnish(scratch), furnish(tuned)


@pytest.fixture
def pretraining(tmp_path: Path) -> Path:
    return furnish(make_run(tmp_path / "runs", "pretrain_mae", {"kind": "mae"}), pictures=True)


def test_headline_is_the_paired_difference(two_runs: tuple[Path, Path], pretraining: Path) -> None:
    made = report(pretraining, *two_runs)
    a, b = (read_predictions(run / "evaluations/site_b/predictions.parquet") for run in reversed(two_runs))
    expected = paired_difference(a, b, bootstrap=300)["ICH"]
    assert expected.ci is not None
    auroc_a, auroc_b = (roc_auc_score(frame["target"], frame["probability"]) for frame in (a, b))
    sentence = (
        "Fine-tuned from MAE pretraining beats training from scratch for ICH on site_b: "
        f"AUROC {auroc_a:.2f} vs {auroc_b:.2f}, difference +{auroc_a - auroc_b:.2f} "
        f"(95 % CI +{expected.ci[0]:.2f} to +{expected.ci[1]:.2f}), n = 120 scans of 60 patients."
    )
    assert made.numbers["findings"][0]["headline"] == sentence
    assert sentence in Elements(made.html).text
    assert made.numbers["data_sets"][0]["differences"][0]["auroc"]["ci"] == list(expected.ci)
    assert made.numbers["data_sets"][0]["leaders"] == {"ICH": "Fine-tuned from MAE pretraining"}


def test_the_page_begins_with_means_over_labels_and_their_paired_differences(tmp_path: Path) -> None:
    labels = ("ICH", "SDH", "IPH")
    scratch = classifier(tmp_path / "runs", "scratch", predictions(0.5, labels))
    tuned = classifier(tmp_path / "runs", "mae", predictions(1.5, labels), weights="runs/pretrain_mae/weights")
    made = report(scratch, tuned)
    (found,) = made.numbers["data_sets"][0]["mean_differences"]
    frames = [predictions(separation, labels) for separation in (1.5, 0.5)]
    a, b = (
        np.mean([roc_auc_score(rows["target"], rows["probability"]) for _, rows in frame.groupby("label")])
        for frame in frames
    )
    assert (found["a"], found["b"], found["difference"]) == pytest.approx((a, b, a - b))
    low, high = found["ci"]
    assert 0 < low < a - b < high < 0.5
    spreads = [np.subtract(*one["auroc"]["ci"][::-1]) for one in made.numbers["data_sets"][0]["differences"]]
    assert high - low < min(spreads)  # three findings say more than one
    text = Elements(made.html).text
    assert "Mean AUROC over ICH, SDH, IPH" in text
    assert f"{a:.2f} ({found['a_ci'][0]:.2f}–{found['a_ci'][1]:.2f})" in " ".join(text.split())
    assert f'<span class="leads">+{a - b:.2f} (+{low:.2f} to +{high:.2f})</span>' in made.html
    other = predictions(1.5, labels).assign(probability=0.5)
    frame = mean_difference(frames[0], other, Bootstrap(replicates=300))
    assert frame is not None
    assert frame.b == 0.5
    assert mean_difference(frames[0].assign(target=1.0), other.assign(target=1.0), Bootstrap(replicates=300)) is None


@pytest.mark.parametrize(
    ("baseline", "pretrained", "says"),
    [(2.0, 0.5, "does worse than training from scratch"), (1.0, 1.0001, "No difference between fine-tuned from")],
)
def test_losing_and_undecided_are_said(baseline: float, pretrained: float, says: str, tmp_path: Path) -> None:
    scratch = classifier(tmp_path, "scratch", predictions(baseline))
    tuned = classifier(tmp_path, "tuned", predictions(pretrained), weights="somewhere/weights")
    made = report(tuned, scratch)
    assert says in made.numbers["findings"][0]["headline"]
    if says.startswith("No difference"):
        assert made.numbers["data_sets"][0]["leaders"] == {}


def test_what_no_run_is_shown_to_change_is_said_once(tmp_path: Path) -> None:
    scratch = classifier(tmp_path, "scratch", predictions(1.0, ("ICH", "SDH")))
    same = [
        classifier(tmp_path, name, predictions(1.0, ("ICH", "SDH")), weights=f"{name}/weights") for name in ("a", "b")
    ]
    (finding,) = report(*same, scratch).numbers["findings"]
    assert finding["headline"] == (
        "On site_b, none of 2 runs is shown to differ from training from scratch, for any of 2 labels."
    )
    assert finding["shown"] == []
    assert len(finding["undecided"]) == 4
    better = classifier(tmp_path, "better", predictions(3.0, ("ICH", "SDH")), weights="c/weights")
    first, second = report(*same, better, scratch).numbers["findings"]
    assert "beats training from scratch for ICH and SDH" in first["headline"]
    assert "none of 2 runs" in second["headline"]


def test_labels_that_cannot_be_judged_are_na_with_a_reason(tmp_path: Path) -> None:
    frame = predictions(2.0, ("ICH", "SDH", "EDH"))
    frame.loc[frame["label"] == "EDH", "target"] = 0
    better = frame.assign(probability=frame["probability"].where(frame["label"] != "ICH", 0.2 + 0.5 * frame["target"]))
    scratch, tuned = classifier(tmp_path, "scratch", frame), classifier(tmp_path, "tuned", better, weights="w/weights")
    made = report(scratch, tuned)
    (finding,) = made.numbers["findings"]
    assert finding["headline"].endswith(
        "beats training from scratch for ICH on site_b; no difference is shown for SDH."
    )
    assert finding["undecided"][-1] == "EDH: can't be judged, only one class among 120 scans (all negative)."
    assert made.numbers["data_sets"][0]["results"]["Trained from scratch"]["labels"]["EDH"]["auroc"] is None
    page = Elements(made.html).text
    assert "n/a: only one class among 120 scans (all negative)" in page
    assert "2 differences were looked at" in page


def test_other_scans_are_not_compared_and_the_page_says_so(tmp_path: Path) -> None:
    scratch = classifier(tmp_path, "scratch", predictions(0.5))
    tuned = classifier(tmp_path, "tuned", predictions(2.0, shift=1), weights="w/weights")
    made = report(scratch, tuned)
    assert made.numbers["data_sets"][0]["differences"] == []
    assert "1 are in the first run only, 1 in the second only" in Elements(made.html).text
    assert len(made.numbers["findings"]) == 2


def test_without_a_baseline_nothing_is_claimed(tmp_path: Path) -> None:
    made = report(classifier(tmp_path, "tuned", predictions(2.0), weights="w/weights"))
    assert "None of these runs was trained from scratch" in made.numbers["caveats"][0]
    assert "beats" not in made.html
    assert re.search(r"ICH: AUROC 0\.\d\d \(95 % CI 0\.\d\d–", made.numbers["findings"][0]["shown"][0])


def test_training_scans_are_pointed_out(tmp_path: Path) -> None:
    made = report(classifier(tmp_path, "scratch", predictions(1.0).assign(split="train")))
    assert any("120 of 120 scans of site_b are marked as training scans" in text for text in made.numbers["caveats"])


def test_linear_probes_are_paired_with_linear_baselines(tmp_path: Path) -> None:
    frame = predictions(1.0)
    runs = read_runs(
        [
            classifier(tmp_path, "scratch", frame),
            classifier(tmp_path, "random_probe", frame, mode="linear"),
            classifier(tmp_path, "probe", frame, "w/weights", mode="linear"),
            classifier(tmp_path, "tuned", frame, "w/weights"),
        ]
    )
    assert pairs(runs, range(4)) == [(2, 1), (3, 0)]
    more = [classifier(tmp_path, "knn", frame, "w/weights", mode="knn"), classifier(tmp_path, "k", frame, mode="knn")]
    assert pairs([*runs, *read_runs(more)], range(6)) == [(2, 1), (3, 0), (4, 5)]
    table = classifier(tmp_path, "merlin", frame, mode="logreg", features=["tables/merlin.parquet"])
    assert pairs([*runs, *read_runs([table])], range(5))[-1] == (4, 1)  # features from elsewhere are no baseline
    assert run_labels(read_runs([table])) == ["Logistic regression on features of merlin"]
    assert pairs(runs, [0, 2, 3]) == [(2, 0), (3, 0)]


def test_runs_are_called_by_what_was_done(tmp_path: Path) -> None:
    frame = predictions(1.0)
    elsewhere = make_run(tmp_path / "other", "archive_dino", {"kind": "dino"})
    runs = read_runs(
        [
            make_run(tmp_path, "pretrain_mae", {"kind": "mae"}),
            classifier(tmp_path, "tuned", frame, "runs/pretrain_mae/weights"),
            classifier(tmp_path, "probe", frame, str(elsewhere / "weights"), mode="linear"),
            classifier(tmp_path, "scratch_1", frame),
            classifier(tmp_path, "scratch_2", frame),
            classifier(tmp_path, "unknown", frame, "packages/merlin/weights"),
            classifier(tmp_path, "pooled", frame, "packages/merlin/weights", mode="attentive"),
            classifier(tmp_path, "factors", frame, "packages/merlin/weights", mode="lora"),
        ]
    )
    assert run_labels(runs) == [
        "MAE pretraining",
        "Fine-tuned from MAE pretraining",
        "Linear probe on DINO pretraining",
        "Trained from scratch (scratch_1)",
        "Trained from scratch (scratch_2)",
        "Fine-tuned from the weights merlin",
        "Attentive probe on the weights merlin",
        "Low-rank adaptation on the weights merlin",
    ]
    assert as_subject("Trained from scratch (scratch_1)") == "training from scratch (scratch_1)"
    assert as_subject("Fine-tuned from MAE pretraining") == "fine-tuned from MAE pretraining"
    assert as_subject("MAE pretraining") == "MAE pretraining"


def test_the_page_is_one_file_without_network_or_scripts(two_runs: tuple[Path, Path], pretraining: Path) -> None:
    made = report(pretraining, *two_runs)
    elements = Elements(made.html)
    assert "script" not in {tag for tag, _ in elements.found}
    assert all(source.startswith("data:image/png;base64,") for source in elements.values("src"))
    assert all(link.startswith("#") for link in elements.values("href"))
    assert {link[1:] for link in elements.values("href")} <= set(elements.values("id"))
    assert not re.search(r"https?://|url\(|@import", made.html)
    assert "Research use only – no diagnosis" in elements.text
    assert all(attributes.get("alt") for tag, attributes in elements.found if tag == "img")


def test_foreign_text_is_escaped_everywhere(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text(
        f"scan_id,path,format,patient_id,split,site,label:{EVIL}\ns1,a,nifti,p1,train,{EVIL},1\n"
    )
    (tmp_path / "rejects.csv").write_text(f"path,code,detail\na,{EVIL},x\nb,LOCALIZER,x\n")
    frame = predictions(1.0, (EVIL,)).assign(site=EVIL)
    run = make_run(
        tmp_path / "runs",
        "run",
        {"kind": "classifier", "weights": EVIL, "mode": EVIL},
        manifest=str(tmp_path / "manifest.csv"),
        cache=EVIL,
    )
    evaluate(run, frame, name="<script>alert(2)")
    (run / "environment.json").write_text(json.dumps({"device": EVIL, "git": EVIL}))
    (run / "weights").mkdir()
    (run / "weights" / "SHA256SUMS").write_text(EVIL)
    pretrained = make_run(tmp_path / "runs", "other", {"kind": EVIL})
    experiment = yaml.safe_load((pretrained / "experiment.yaml").read_text())
    (pretrained / "experiment.yaml").write_text(yaml.safe_dump({**experiment, "name": EVIL}))
    made = make_report([run, pretrained], EVIL, Bootstrap(replicates=100), 2)
    elements = Elements(made.html)
    assert "<script" not in made.html.lower()
    assert "script" not in {tag for tag, _ in elements.found}
    assert elements.text.count(EVIL) > 10


def test_dollar_signs_in_names_are_no_mathematics(tmp_path: Path) -> None:
    made = report(classifier(tmp_path, "scratch", predictions(1.0, ("cost_$x^{$", "a$b$c"))))
    assert "cost_$x^{$" in Elements(made.html).text


def test_pretraining_alone_shows_what_there_is(pretraining: Path) -> None:
    made = report(pretraining)
    elements = Elements(made.html)
    assert made.numbers["data_sets"] == []
    assert "holds no result on a disease" in elements.text
    assert "MAE pretraining ran 40 steps in 95 s (40.0 scans/s, CPU (2 threads))" in elements.text
    assert "its training loss went from 1.00 to 0.024" in elements.text
    assert "reconstruction, step 100" in elements.text
    assert "reconstruction, step 9" not in elements.text
    assert "ab12  model.safetensors" in elements.text
    assert len(elements.values("src")) == 3  # loss, reconstruction, views


def test_a_bare_run_says_what_is_missing(tmp_path: Path) -> None:
    made = report(make_run(tmp_path, "bare", {"kind": "dino"}))
    missing = ["environment.json", "metrics.csv", "pictures", "weights/SHA256SUMS"]
    assert made.numbers["runs"][0]["missing"] == missing
    text = Elements(made.html).text
    for sentence in ("no loss was logged", "This run has no pictures", "name no cache", "name no manifest"):
        assert sentence in text


def test_metrics_alone_give_a_table_without_curves(tmp_path: Path) -> None:
    run = classifier(tmp_path, "scratch", predictions(1.0))
    (run / "evaluations" / "site_b" / "predictions.parquet").unlink()
    made = report(run)
    assert "No curves: the predictions weren't kept" in Elements(made.html).text
    assert made.numbers["data_sets"][0]["results"]["Trained from scratch"]["labels"]["ICH"]["n_scans"] == 120


def test_predictions_alone_are_summarized(tmp_path: Path) -> None:
    run = make_run(tmp_path, "scratch", {"kind": "classifier"})
    evaluate(run, predictions(1.0), metrics=False)
    (evaluation,) = read_run(run).evaluations.values()
    assert evaluation.metrics.model_dump(mode="json") == summarize(predictions(1.0))


def test_metrics_of_other_predictions_are_refused(two_runs: tuple[Path, Path]) -> None:
    write_predictions(predictions(1.7), two_runs[0] / "evaluations" / "site_b" / "predictions.parquet")
    with pytest.raises(UsageError, match="doesn't follow from predictions"):
        report(*two_runs)


def test_data_section_counts_the_manifest_and_the_rejects(tmp_path: Path) -> None:
    rows = ["scan_id,path,format,patient_id,split,site,label:ICH"]
    rows += [f"s{i},{i},nifti,p{i // 2},{'train' if i < 4 else 'test'},site_a,{[1, 0, ''][i % 3]}" for i in range(10)]
    (tmp_path / "m.csv").write_text("\n".join(rows))
    (tmp_path / "rejects.csv").write_text("path,code,detail\na,LOCALIZER,\nb,LOCALIZER,\nc,NOT_CT,\n")
    cache = VolumeCache.create(tmp_path / "cache", IsotropicSettings())
    cache.reject("s9", "a", RejectCode.NOT_A_HEAD, "nothing")
    cache.save()
    places = {"manifest": str(tmp_path / "m.csv"), "cache": str(tmp_path / "cache")}
    runs = [make_run(tmp_path / "runs", name, {"kind": name}, **places) for name in ("mae", "dino")]
    (manifest,) = report(*runs, shown=0).numbers["manifests"]
    assert (manifest["scans"], manifest["patients"]) == (10, 5)
    assert manifest["sha256"] == hashlib.sha256((tmp_path / "m.csv").read_bytes()).hexdigest()
    assert manifest["used_by"] == ["MAE pretraining", "DINO pretraining"]
    assert [(row["split"], row["scans"], row["patients"]) for row in manifest["groups"]] == [
        ("test", 6, 3),
        ("train", 4, 2),
    ]
    assert manifest["labels"] == [
        {"label": "ICH", "known": 7, "positive": 4, "positive_patients": 4, "prevalence": 4 / 7}
    ]
    assert [(row["code"], row["count"]) for row in manifest["rejects"]] == [
        ("LOCALIZER", 2),
        ("NOT_CT", 1),
        ("NOT_A_HEAD", 1),
    ]
    assert manifest["rejects"][0]["meaning"] == "The series is a scout (localizer) view."


def test_scans_are_shown_and_a_broken_one_is_named(tmp_path: Path) -> None:
    cache = VolumeCache.create(tmp_path / "cache", IsotropicSettings(spacing_mm=9.0, shape_voxels=8))
    for number in range(5):
        cache.write(f"scan{number}", Volume(np.full((8, 8, 8), 40, np.int16), np.diag([9.0, 9.0, 9.0, 1.0])))
    cache.save()
    cache.volume_path("scan2").write_bytes(b"damaged")
    run = make_run(tmp_path, "mae", {"kind": "mae"}, cache=str(tmp_path / "cache"))
    two = Elements(report(run, shown=2).html)
    assert "The first 2 of 5 scans" in two.text
    assert "middle axial, coronal and sagittal slice of scan scan1" in two.values("alt")
    assert len(two.values("src")) == 2
    broken = Elements(report(run, shown=4).html)
    assert len(broken.values("src")) == 2
    assert re.search(r"No pictures beyond these: .*scan2", broken.text)


def test_a_cache_that_is_gone_is_said(tmp_path: Path) -> None:
    made = report(make_run(tmp_path, "mae", {"kind": "mae"}, cache=str(tmp_path / "gone")))
    assert "this cache isn't there any more" in Elements(made.html).text


def test_slices_follow_the_radiological_convention() -> None:
    right, anterior, superior = (np.zeros((5, 7, 9)) for _ in range(3))
    right[:, :, 8], anterior[:, 6, :], superior[4] = 1, 1, 1
    assert middle_slices(right)["axial"].shape == (7, 9)
    assert middle_slices(right)["axial"][:, 0].all()
    assert middle_slices(right)["coronal"][:, 0].all()
    assert middle_slices(anterior)["axial"][0].all()
    assert middle_slices(anterior)["sagittal"][:, 0].all()
    assert middle_slices(superior)["coronal"][0].all()
    assert middle_slices(superior)["sagittal"][0].all()


def test_brain_window_and_montage() -> None:
    assert brain_window(np.array([-1000, 0, 40, 80, 3000])).tolist() == [0, 0, 0.5, 1, 1]
    volume = np.full((8, 8, 8), -1000, np.int16)
    volume[:, :, 4:] = 80  # the patient's right half is bright
    picture = np.asarray(Image.open(io.BytesIO(montage({"one": volume}, titles=False))).convert("L")).astype(float)
    height, width = picture.shape
    axial = picture[height // 2 - 40 : height // 2 - 20, : width // 3]  # above the letters in the middle
    assert axial[:, width // 12].mean() > 200
    assert axial[:, width // 4].mean() < 50
    with pytest.raises(ValueError, match="at least one volume"):
        montage({})


@pytest.mark.parametrize("ties", [None, 5])
def test_area_under_the_drawn_steps_is_the_average_precision(ties: int | None) -> None:
    generator = np.random.default_rng(1)
    target = (generator.random(200) < 0.2).astype(float)
    score = generator.random(200) + 0.3 * target
    score = score if ties is None else np.round(score * ties)
    recall, precision = steps(target, score)
    assert np.sum(np.diff(recall) * precision[1:]) == pytest.approx(average_precision_score(target, score), abs=1e-12)
    assert recall[-1] == 1


def test_every_run_keeps_its_own_look() -> None:
    names = [f"run {i}" for i in range(9)]
    drawn = looks(names, [i == 2 for i in range(9)], [i > 0 for i in range(9)])
    assert [look.label for look in drawn] == names
    assert len({(look.color, look.dashes) for look in drawn}) == 9
    assert drawn[2].dashes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (wording.share(0.834), "0.83"),
        (wording.share(0.9971), "0.997"),
        (wording.share(0.99999), "> 0.9999"),
        (wording.share(1.0), "1.00"),
        (wording.share(None), "n/a"),
        (wording.signed(0.123), "+0.12"),
        (wording.signed(-0.0012), "−0.001"),
        (wording.signed(0.0001), "+< 0.001"),
        (wording.signed(0.0), "0.00"),
        (wording.signed_interval([-0.1, 0.2]), "−0.10 to +0.20"),
        (wording.interval(None), "no interval"),
        (wording.percent(0.95), "95 %"),
        (wording.count(1200, "scan"), "1,200 scans"),
        (wording.count(1, "scan"), "1 scan"),
        (wording.duration(42), "42 s"),
        (wording.duration(5100), "85 min"),
        (wording.duration(14400), "4.0 h"),
        (wording.duration(400000), "4.6 days"),
        (wording.significant(0.02439), "0.024"),
        (wording.significant(0.0002439), "2.44e-04"),
        (wording.significant(1234.5), "1,234"),
        (wording.listing(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_numbers_are_written_without_changing_their_meaning(text: str, expected: str) -> None:
    assert text == expected


def test_command_writes_the_page_and_prints_its_numbers(
    two_runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pages" / "report.html"
    arguments = [*map(str, two_runs), "--out", str(out), "--title", "Our heads", "--json", "--bootstrap", "300"]
    assert main(COMMAND, arguments) == ExitCode.DONE
    numbers = json.loads(capsys.readouterr().out)
    page = Elements(out.read_text()).text
    assert "Our heads" in page
    for run, metrics in numbers["data_sets"][0]["results"].items():
        result = metrics["labels"]["ICH"]
        assert run in page
        assert f"{result['auroc']:.2f} ({result['auroc_ci'][0]:.2f}–{result['auroc_ci'][1]:.2f})" in page
    assert numbers["findings"][0]["headline"] in page
    runs = read_runs(two_runs)
    (results,) = gather(runs, run_labels(runs), Bootstrap(replicates=300))
    (difference,) = numbers["data_sets"][0]["differences"]
    assert difference["auroc"] == results.comparisons[0].auroc["ICH"].model_dump(mode="json")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("runs", "give the runs themselves: "),
        ("runs/scratsh", "did you mean "),
        ("elsewhere", "give the folder that `fmct fit` wrote"),
    ],
)
def test_what_is_no_run_is_an_error_of_three_lines(
    given: str, message: str, two_runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    assert main(COMMAND, [str(tmp_path / given), "--out", str(tmp_path / "r.html")]) == ExitCode.USAGE
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 3
    assert message in error
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("experiment.yaml", "name: [", "experiment.yaml can't be read"),
        ("experiment.yaml", "just text", "holds no configuration"),
        ("environment.json", "{", "isn't JSON"),
        ("metrics.csv", "epoch,loss\n1,2\n", "no column step"),
        ("pictures/views_step000002.png", "GIF89a", "not a PNG picture"),
        ("evaluations/x/metrics.json", "{}", "isn't laid out"),
        ("evaluations/x/predictions.parquet", "x", "not a readable Parquet"),
    ],
)
def test_damaged_files_are_named(file: str, content: str, message: str, pretraining: Path) -> None:
    (pretraining / file).parent.mkdir(parents=True, exist_ok=True)
    (pretraining / file).write_text(content)
    with pytest.raises(UsageError, match=message) as error:
        report(pretraining)
    assert str(pretraining / file) in str(error.value)


def test_a_run_given_twice_is_refused(pretraining: Path) -> None:
    with pytest.raises(UsageError, match="given twice"):
        report(pretraining, pretraining / ".." / pretraining.name)


def test_reporting_needs_no_torch() -> None:
    code = "import sys, fmct.evaluation.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
