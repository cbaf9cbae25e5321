"""The recipes of CONTRIBUTING.md, followed word for word in a copy of the package."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import REPOSITORY, TinyCohort

BLOCKS = re.findall(r"```(?:python|yaml|bash)\n(.*?)```", (REPOSITORY / "CONTRIBUTING.md").read_text(), re.DOTALL)


def block(path: str) -> str:
    """The block of code whose first line names a file."""
    return next(text for text in BLOCKS if text.startswith(f"# {path}\n"))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    shutil.copytree(REPOSITORY / "fmct", tmp_path / "fmct", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(REPOSITORY / "experiments", tmp_path / "experiments")
    return tmp_path


def fmct(clone: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(clone)}
    done = subprocess.run(
        [sys.executable, "-m", "fmct.cli", *arguments],
        cwd=clone, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in {0, 3}, done.stdout + done.stderr
    return done.stdout


def patch(path: Path, names: str, imports: str) -> None:
    """Replace the assignments that a block of the recipe shows, and add the imports that it asks for."""
    lines = path.read_text().splitlines()
    for new in block(names).splitlines()[1:]:
        name = new.split(" = ")[0]
        (at,) = [i for i, line in enumerate(lines) if line.startswith(f"{name} = ")]
        lines[at] = new
    last_import = max(i for i, line in enumerate(lines) if line.startswith("from fmct."))
    lines[last_import + 1 : last_import + 1] = imports.splitlines()
    path.write_text("\n".join(lines) + "\n")


def steps(folder: Path) -> int:
    finished: int = json.loads((folder / "environment.json").read_text())["steps"]
    return finished


def test_a_pretext_task_is_one_file_and_one_line(clone: Path, tiny: TinyCohort) -> None:
    (clone / "fmct" / "tasks" / "denoise.py").write_text(block("fmct/tasks/denoise.py"))
    patch(
        clone / "fmct" / "experiment" / "schema.py",
        "fmct/experiment/schema.py",
        "from fmct.tasks.denoise import DenoiseConfig",
    )
    text = (clone / "experiments" / "pretrain_mae_smoke.yaml").read_text()
    text = re.sub(r"task:\n(  .*\n)+", "task: {kind: denoise, noise: 0.2}\n", text).replace("[val]", "[]")
    (clone / "experiments" / "denoise.yaml").write_text(text)
    where = ("--data.manifest", str(tiny.manifest), "--data.cache", str(tiny.cache), "--input.voxels", "24")
    fmct(clone, "fit", "--config", "experiments/denoise.yaml", *where, "--trainer.max_steps", "2", "--name", "denoise")
    assert steps(clone / "runs" / "denoise") == 2
    assert (clone / "runs" / "denoise" / "weights" / "model.safetensors").exists()


def test_a_backbone_is_one_file_and_its_name(clone: Path, tiny: TinyCohort) -> None:
    (clone / "fmct" / "models" / "convmixer3d.py").write_text(block("fmct/models/convmixer3d.py"))
    patch(
        clone / "fmct" / "models" / "backbones.py",
        "fmct/models/backbones.py",
        "from fmct.models.convmixer3d import ConvMixer3D, ConvMixer3DConfig",
    )
    where = ["--data.manifest", str(tiny.manifest), "--data.cache", str(tiny.cache), "--input.voxels", "24"]
    for name in ("pretrain_dino_smoke", "classify_smoke"):
        path = clone / "experiments" / f"{name}.yaml"
        text = re.sub(r"backbone: .*", "backbone: {kind: convmixer3d, width: 24, depth: 2}", path.read_text())
        path.write_text(text.replace("local_voxels: 24", "local_voxels: 16"))
        more = ["--task.weights", "runs/pretrain_dino_smoke/weights"] if name == "classify_smoke" else []
        fmct(clone, "fit", "--config", str(path), *where, *more, "--trainer.max_steps", "2")
        assert steps(clone / "runs" / name) == 2
    assert "AUROC" in fmct(clone, "evaluate", "runs/classify_smoke", "--data", str(tiny.manifest))


def test_a_labelled_set_needs_no_python(clone: Path) -> None:
    (clone / "scans").mkdir()
    z, y, x = np.mgrid[-100:101:5, -100:101:5, -100:101:5]
    rng = np.random.default_rng(0)
    lines = ["path,Fracture"]
    for number in range(16):
        level = (x**2 + y**2 + z**2) / (70 + number) ** 2
        hu = np.select([level < 0.75, level < 1], [30, 900], -1000) + rng.integers(-9, 9, level.shape)
        hu[(level > 0.75) & (level < 1) & (z > 30) & (x > 0) & (number % 2 > 0)] = 60  # a piece of the skull is gone
        image = nib.Nifti1Image(hu.transpose(2, 1, 0).astype(np.int16), np.diag([5.0, 5.0, 5.0, 1.0]))
        nib.save(image, clone / "scans" / f"scan{number}.nii.gz")
        lines.append(f"scan{number}.nii.gz,{number % 2}")
    (clone / "labels.csv").write_text("\n".join(lines) + "\n")
    commands = next(text for text in BLOCKS if text.startswith("fmct index scans/")).splitlines()
    for command in commands:
        extra = ["--key-file", "key"] if command.startswith("fmct index") else []
        small = ["--spacing-mm", "4.5", "--shape-voxels", "48"] if command.startswith("fmct preprocess") else []
        fmct(clone, *command.split()[1:], *extra, *small)
    experiment = block("experiments/classify_fracture.yaml")
    (clone / "experiments" / "classify_fracture.yaml").write_text(experiment)
    fmct(clone, "fit", "--config", "experiments/classify_fracture.yaml")
    fmct(clone, "evaluate", "runs/classify_fracture", "--data", "scans/manifest.csv")
    fmct(clone, "report", "runs/classify_fracture", "--out", "report.html")
    assert "Fracture" in (clone / "report.html").read_text()
