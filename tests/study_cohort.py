"""A tiny cohort for studies of many runs: one scan per patient, both classes of both labels at every site."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import yaml
from conftest import TinyCohort, make_cohort

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


def write_cohort(folder: Path, sites: int = 2, train: int = 16, test: int = 24) -> TinyCohort:
    """Write so many scans of each site for training and for testing; odd ones have ICH, every other pair has SDH."""
    per_site = train + test
    cohort = make_cohort(folder, scans=sites * per_site)
    frame = pd.read_csv(cohort.manifest, dtype=str, keep_default_na=False)
    numbers = range(len(frame))
    frame["patient_id"] = "p" + frame["scan_id"]
    frame["site"] = [f"site_{'abcdef'[number // per_site]}" for number in numbers]
    frame["split"] = ["train" if number % per_site < train else "test" for number in numbers]
    frame["label:SDH"] = [str(number // 2 % 2) for number in numbers]
    frame.drop(columns="label:MidlineShift").to_csv(cohort.manifest, index=False)
    return cohort


def overlay(folder: Path, cohort: TinyCohort, **more: object) -> Path:
    """Write what makes an experiment tiny, over `overlays/smoke.yaml`."""
    content = {
        "data": {"manifest": str(cohort.manifest), "cache": str(cohort.cache), "batch_size": 4, "val_splits": []},
        "trainer": {"runs": str(folder / "runs"), "max_steps": 2, "pictures_every_steps": 0},
        **more,
    }
    path = folder / "overlay.yaml"
    path.write_text(yaml.safe_dump(content))
    return path
