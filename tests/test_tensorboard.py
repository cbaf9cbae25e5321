"""What TensorBoard shows beside scalars and pictures: configurations, precision and recall, embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from fmct.evaluation.pr_curves import write_pr_curves
from fmct.evaluation.projector import known_of, write_projector
from fmct.experiment.event_file import EventFile
from fmct.experiment.hyperparameters import flat


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder)).Reload()


def test_a_configuration_is_one_flat_row_without_places() -> None:
    record = {"name": "a", "seed": 3, "task": {"kind": "mae", "crops": {"share": [0.5, 1.0]}}, "data": {"cache": "/x"}}
    assert flat(record) == {"seed": 3, "task.kind": "mae", "task.crops.share": "[0.5, 1.0]"}
    assert flat({"a": {"b": None, "c": True}}) == {"a.c": True}


def test_a_run_has_its_configuration_and_its_loss(tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump({"seed": 3, "task": {"kind": "mae"}}))
    file = EventFile(tmp_path / "tb")
    file.log_metrics({"train/loss": 0.5}, 0)
    file.log_metrics({"train/loss": 0.25}, 1)
    file.write()
    found = events(tmp_path / "tb").PluginTagToContent("hparams")
    start = HParamsPluginData.FromString(found["_hparams_/session_start_info"]).session_start_info
    assert start.hparams["task.kind"].string_value == "mae"
    assert start.hparams["seed"].number_value == 3
    assert [event.value for event in events(tmp_path / "tb").Scalars("train/loss")] == [0.5, 0.25]


def test_precision_and_recall_are_those_of_the_predictions_and_come_once(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "label": ["ICH"] * 4 + ["SDH"] * 2,
            "target": [1, 0, 1, np.nan, 0, 0],
            "probability": [0.9, 0.8, 0.3, 1, 0.1, 0.2],
        }
    )
    for _ in range(2):
        write_pr_curves(frame, tmp_path / "tb")
    found = events(tmp_path / "tb")
    assert found.Tags()["tensors"] == ["precision_recall/ICH"]  # SDH has no positive scan
    (curve,) = found.Tensors("precision_recall/ICH")
    values = np.frombuffer(curve.tensor_proto.tensor_content, np.float32)
    values = values if len(values) else np.array(curve.tensor_proto.float_val, np.float32)
    rows = values.reshape(6, -1)  # true and false positives, true and false negatives, precision, recall
    half = rows[:, rows.shape[1] // 2]  # at a threshold of one half
    np.testing.assert_allclose(half, [1, 1, 0, 1, 0.5, 0.5])


def test_the_projector_knows_site_and_labels(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    pd.DataFrame(
        {
            "scan_id": ["a", "b"],
            "path": ["a.nii.gz", "b.nii.gz"],
            "format": "nifti",
            "patient_id": ["p", "q"],
            "site": ["site_a", "site_b"],
            "label:ICH": [1, ""],
        }
    ).to_csv(manifest, index=False)
    known = known_of(["b", "a", "elsewhere"], [manifest, tmp_path])
    assert known["scan_id"].tolist() == ["b", "a", "elsewhere"]
    assert known["site"].tolist() == ["site_b", "site_a", ""]
    assert known["ICH"].tolist() == ["", "1", ""]
    features = np.arange(6, dtype=np.float32).reshape(3, 2)
    for _ in range(2):
        write_projector(features, known, tmp_path / "tb", "embeddings")
    config = (tmp_path / "tb" / "projector_config.pbtxt").read_text()
    assert config.count("embeddings {") == 1
    (table,) = (tmp_path / "tb").rglob("tensors.tsv")
    np.testing.assert_array_equal(np.loadtxt(table, delimiter="\t"), features)
    (metadata,) = (tmp_path / "tb").rglob("metadata.tsv")
    assert pd.read_csv(metadata, sep="\t", dtype=str, keep_default_na=False)["site"].tolist() == known["site"].tolist()


@pytest.mark.parametrize("folder", ["missing"])
def test_a_manifest_that_isnt_there_is_no_knowledge(folder: str, tmp_path: Path) -> None:
    assert known_of(["a"], [tmp_path / folder]).to_dict("list") == {"scan_id": ["a"]}
