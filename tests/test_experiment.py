"""Experiment files: strict loading, precedence, cross-checks, and errors of three lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from conftest import is_sweep

from fmct.console.errors import UsageError
from fmct.experiment.config import differences
from fmct.experiment.flags import known_fields
from fmct.experiment.loading import as_record, digest, load_experiment
from fmct.experiment.schema import Experiment
from fmct.fit import main
from fmct.tasks.mae import MAEConfig

REPOSITORY = Path(__file__).resolve().parent.parent
EXPERIMENTS = REPOSITORY / "experiments"
FILES = [path for path in sorted(EXPERIMENTS.glob("*.yaml")) if not is_sweep(path)]
FILES += sorted((EXPERIMENTS / "demo").glob("*.yaml"))
SMOKE = EXPERIMENTS / "pretrain_mae_smoke.yaml"


def write(folder: Path, text: str) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_experiment_validates_and_is_named_after_its_file(path: Path) -> None:
    experiment = load_experiment([path])
    assert experiment.name == path.stem


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_experiment_takes_the_smoke_overlay(path: Path) -> None:
    overlay = "smoke_resnet.yaml" if load_experiment([path]).backbone.kind == "resnet" else "smoke.yaml"
    experiment = load_experiment([path, EXPERIMENTS / "overlays" / overlay])
    assert experiment.trainer.max_steps == 2
    assert experiment.task == load_experiment([path]).task


def test_a_size_by_name_takes_the_smoke_overlay_too(tmp_path: Path) -> None:
    path = write(tmp_path, SMOKE.read_text().replace("width: 96, depth: 3, heads: 4", "size: huge"))
    assert load_experiment([path]).backbone.width == 1280
    assert load_experiment([path, EXPERIMENTS / "overlays" / "smoke.yaml"]).backbone.width == 48


def test_the_contract_example_of_the_documentation_holds() -> None:
    experiment = load_experiment([EXPERIMENTS / "pretrain_mae_vitb.yaml"])
    assert experiment.optimizer.lr == pytest.approx(1.5e-4)
    assert isinstance(experiment.task, MAEConfig)
    assert (experiment.task.decoder.depth, experiment.task.decoder.width) == (4, 384)
    assert experiment.backbone.width == 768


def test_scientific_notation_without_a_point_is_a_number(tmp_path: Path) -> None:
    overlay = write(tmp_path, "optimizer: {lr: 1e-4}")
    assert load_experiment([SMOKE, overlay]).optimizer.lr == pytest.approx(1e-4)


def test_flags_beat_environment_beats_later_files_beat_earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overlay = write(tmp_path, "optimizer: {lr: 0.2}\ndata: {batch_size: 7}\nseed: 5")
    monkeypatch.setenv("FMCT_OPTIMIZER__LR", "0.3")
    monkeypatch.setenv("FMCT_SEED", "6")
    experiment = load_experiment([SMOKE, overlay], ["--seed", "7"])
    assert experiment.seed == 7
    assert experiment.optimizer.lr == pytest.approx(0.3)
    assert experiment.data.batch_size == 7
    assert experiment.optimizer.betas == (0.9, 0.95)


def test_flags_reach_into_unions_and_lists() -> None:
    flags = ["--task.mask_ratio", "0.5", "--task.crops.share", "0.4,0.9", "--trainer.max_epochs=3"]
    experiment = load_experiment([SMOKE], flags)
    assert isinstance(experiment.task, MAEConfig)
    assert experiment.task.mask_ratio == 0.5
    assert experiment.task.crops.share == (0.4, 0.9)
    assert experiment.trainer.max_epochs == 3


def test_every_key_is_a_flag_also_where_two_tasks_share_a_section() -> None:
    flags = ["--task.head.kind", "attentive", "--task.head.heads", "6"]
    head = load_experiment([EXPERIMENTS / "classify_smoke.yaml"], flags).task.head  # type: ignore[union-attr]
    assert (head.kind, head.heads) == ("attentive", 6)  # type: ignore[union-attr]
    dino = load_experiment([EXPERIMENTS / "pretrain_dino_smoke.yaml"], ["--task.head.prototypes", "99"])
    assert dino.task.head.prototypes == 99  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--data.train_splits", "train"], ("train",)),
        (["--data.train_splits", "pretrain,train"], ("pretrain", "train")),
        (["--data.train_splits=[pretrain, '']"], ("pretrain", "")),
    ],
)
def test_lists_are_written_as_one_likes(flags: list[str], expected: tuple[str, ...]) -> None:
    assert load_experiment([SMOKE], flags).data.train_splits == expected


def test_a_bare_flag_is_true_and_numbers_may_be_negative() -> None:
    experiment = load_experiment([SMOKE], ["--trainer.deterministic", "--backbone.patch_voxels", "16,16,8"])
    assert experiment.trainer.deterministic is True
    assert experiment.backbone.patch_voxels == (16, 16, 8)
    with pytest.raises(UsageError, match="seed"):
        load_experiment([SMOKE], ["--seed", "-3"])


def test_a_word_without_a_flag_is_refused() -> None:
    with pytest.raises(UsageError, match="stray belongs to no flag"):
        load_experiment([SMOKE], ["stray"])


def test_null_is_a_value_on_the_command_line() -> None:
    experiment = load_experiment(
        [EXPERIMENTS / "classify_smoke.yaml"], ["--task.mode", "linear", "--task.weights", "null"]
    )
    assert experiment.task.weights is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optimizer: {lrr: 1e-3}", ["unknown key optimizer.lrr", "did you mean optimizer.lr?"]),
        ("task: {mask_ration: 0.5}", ["unknown key task.mask_ration", "did you mean task.mask_ratio?"]),
        ("task: {decoder: {dpeth: 2}}", ["unknown key task.decoder.dpeth", "did you mean task.decoder.depth?"]),
        ("trianer: {max_epochs: 2}", ["unknown key trianer", "did you mean trainer?"]),
        ("input: {qqqqq: 2}", ["unknown key input.qqqqq", "input knows: voxels, windows"]),
        ("task: {mask_ratio: high}", ["task.mask_ratio", "'high'"]),
        ("task: {mask_ratio: 1.5}", ["task.mask_ratio", "less than 1"]),
        ("task: {kind: meo}", ["'meo'", "'mae', 'dino', 'anomaly', 'classifier'"]),
        ("input: {voxels: 50}", ["input.voxels 50 is no multiple of backbone.patch_voxels 8: use 48"]),
        ("trainer: {max_epochs: null}", ["a run must end"]),
        ("name: ../elsewhere", ["name"]),
        ("task: {crops: {share: [0.9, 0.2]}}", ["least <= greatest"]),
        ("backbone: {width: 101}", ["backbone: width 101 must be", "divisible by 4 heads: try 100 or 104"]),
        ("backbone: {size: big}", ["backbone.size", "'small', 'base'"]),
        ("backbone: {size: base, depth: 4}", ["backbone: size base has no effect beside width 96, depth 4, heads 4"]),
        ("backbone: {kind: resnet, depth: 18}", ["unknown key backbone.width", "kind resnet has no such key"]),
        ("backbone: null", ["backbone: "]),
    ],
)
def test_wrong_keys_and_values_say_which_and_what_instead(tmp_path: Path, text: str, expected: list[str]) -> None:
    overlay = write(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load_experiment([SMOKE, overlay])
    message = str(caught.value)
    assert all(part in message for part in expected), message
    assert len(message.splitlines()) == 3
    assert str(overlay) in message


def test_unknown_flag_suggests_the_nearest_key() -> None:
    with pytest.raises(UsageError, match=r"did you mean --optimizer\.lr\?"):
        load_experiment([SMOKE], ["--optimizer.lrr", "3"])


def test_missing_file_is_an_error_that_suggests_its_neighbor() -> None:
    with pytest.raises(UsageError, match=r"did you mean .*pretrain_mae_smoke\.yaml"):
        load_experiment([EXPERIMENTS / "pretrain_mea_smoke.yaml"])


def test_missing_section_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="task is missing"):
        load_experiment([write(tmp_path, "name: x")])


@pytest.mark.parametrize(
    ("text", "expected"), [("a: [1", "not valid YAML"), ("", "holds no keys"), ("!!python/object:os.system {}", "YAML")]
)
def test_broken_or_unsafe_yaml_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        load_experiment([write(tmp_path, text)])


def test_lateral_labels_refuse_flips() -> None:
    flags = ["--task.labels", "BleedLocation-Left", "--task.crops.flip_probability", "0.5"]
    with pytest.raises(UsageError, match="left-right flips would falsify BleedLocation-Left"):
        load_experiment([EXPERIMENTS / "classify_cq500_finetune.yaml"], flags)


def test_dino_refuses_validation_splits_and_small_classifier_batches_are_refused() -> None:
    with pytest.raises(UsageError, match="no validation loss"):
        load_experiment([EXPERIMENTS / "pretrain_dino_smoke.yaml"], ["--data.val_splits", "val"])
    with pytest.raises(UsageError, match="at least 2"):
        load_experiment([EXPERIMENTS / "classify_smoke.yaml"], ["--data.batch_size", "1"])


def test_record_is_plain_and_reads_back_as_the_same_experiment(tmp_path: Path) -> None:
    experiment = load_experiment([EXPERIMENTS / "classify_cq500_finetune.yaml"])
    record = as_record(experiment)
    assert json.loads(json.dumps(record)) == record
    again = load_experiment([write(tmp_path, yaml.safe_dump(record))])
    assert as_record(again) == record
    assert isinstance(again, Experiment)
    assert digest(record) == digest(as_record(again))


def test_differences_are_listed_by_dotted_key() -> None:
    assert differences({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 5}, "e": 4}) == [
        "a.c: 2 -> 5",
        "d: 3 -> None",
        "e: None -> 4",
    ]


def test_every_key_has_a_place() -> None:
    keys = known_fields(Experiment)
    assert {"task.mask_ratio", "task.head.prototypes", "backbone.width", "input.windows.level_hu"} <= set(keys)


def test_main_prints_errors_in_three_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 3
    assert main(["--config", str(SMOKE), "--optimizer.lrr", "1", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_print_config_shows_every_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(SMOKE), "--print-config"]) == 0
    record = yaml.safe_load(capsys.readouterr().out)
    assert record["optimizer"]["final_lr_fraction"] == 0.001
    assert [w["width_hu"] for w in record["input"]["windows"]] == [80, 200, 2800]
