"""Sections of the report that come from files beside the runs: embeddings, maps of scans, and studies of many runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fmct.console.errors import UsageError, require_file
from fmct.console.files import file_name
from fmct.data.feature_table import read_features
from fmct.data.manifest import read_manifest
from fmct.evaluation import wording
from fmct.evaluation.cohort import manifests_of
from fmct.evaluation.confidence import Bootstrap
from fmct.evaluation.embedding_map import embedding_figure
from fmct.evaluation.few_shot_figure import few_shot_figure
from fmct.evaluation.figures import looks
from fmct.evaluation.map_kinds import MEANINGS
from fmct.evaluation.picture import Picture
from fmct.evaluation.run_folder import Run
from fmct.evaluation.shortcuts import FACTORS, Shortcut, find_shortcuts
from fmct.evaluation.studies import Studies, few_shot_rows, few_shot_sentences, transfer_figures

MOST_MAPS = 12


@dataclass(frozen=True)
class Beside:
    """What a report takes besides runs.

    Attributes:
        embeddings: tables of `fmct embed`.
        maps: folders that `fmct predict --maps` wrote.
        studies: few-shot studies and transfer matrices.
    """

    embeddings: Sequence[Path] = ()
    maps: Sequence[Path] = ()
    studies: Studies = field(default_factory=lambda: Studies({}, {}))


def embeddings_view(runs: Sequence[Run], tables: Sequence[Path], settings: Bootstrap) -> list[dict[str, Any]]:
    """Draw maps of embeddings, and see how well they tell site and scanner, by the runs' manifests."""
    manifests = [Path(manifest) for manifest in manifests_of(runs)] if tables else []
    known = [read_manifest(path) for path in manifests if path.is_file()]
    views = []
    for table in tables:
        features = read_features([table]).frame
        scans = pd.concat(known).drop_duplicates("scan_id") if known else pd.DataFrame({"scan_id": []})
        scans = scans[scans["scan_id"].isin(features.index)]
        drawn = embedding_figure(features, scans)
        found: Sequence[Shortcut] = ()
        if drawn:
            matrix = features.loc[scans["scan_id"]].to_numpy(np.float64)
            found = find_shortcuts(scans, matrix, FACTORS, settings).results
        alt = "Map of embeddings, colored by finding, by site and by scanner"
        views.append(
            {
                "path": str(table),
                "picture": Picture.of(drawn[0], alt) if drawn else None,
                "scans": drawn[1] if drawn else 0,
                "held": len(features),
                "shortcuts": [one.model_dump(mode="json") | {"verdict": one.verdict} for one in found],
            }
        )
    return views


def maps_view(folder: Path) -> dict[str, Any]:
    """Show maps that `fmct predict --maps` drew, up to twelve, and how well they point at lesions, if that is known.

    Raises:
        UsageError: when the folder holds no maps, or hit_rate.json can't be read.
    """
    require_file(folder, "the folder of maps", "name the --out of `fmct predict`")
    pictures = sorted(folder.glob("maps/*/*.png"))
    if not pictures:
        raise UsageError("the folder holds no maps", folder, "make them: fmct predict ... --maps relevance")
    rates = folder / "hit_rate.json"
    try:
        hits = json.loads(rates.read_text(encoding="utf-8"))["hit_rates"] if rates.is_file() else []
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"the file can't be read ({error})", rates, "run `fmct predict` again") from error
    said = probabilities_in(folder)
    shown = []
    for path in pictures[:MOST_MAPS]:
        scan, (_, _, label) = path.parent.name, path.stem.partition("-")
        known = f", probability {said[scan, label]:.2f}" if (scan, label) in said else ""
        alt, caption = f"{path.stem} on three planes of scan {scan}", f"{path.stem}, {scan}{known}"
        shown.append(Picture.read(path, alt, caption))
    kinds = sorted({path.stem.partition("-")[0] for path in pictures[:MOST_MAPS]} & set(MEANINGS))
    meanings = [f"{kind.capitalize()}: {MEANINGS[kind]}." for kind in kinds]
    return {"path": str(folder), "pictures": shown, "drawn": len(pictures), "hits": hits, "meanings": meanings}


def probabilities_in(folder: Path) -> dict[tuple[str, str], float]:
    """Return what `fmct predict` said of each scan and label; nothing where it wrote no table."""
    table, other = folder / "probabilities.csv", folder / "probabilities.parquet"
    if table.is_file():
        rows = pd.read_csv(table, dtype={"scan_id": str, "label": str}, keep_default_na=False)
    elif other.is_file():
        rows = pd.read_parquet(other)
    else:
        return {}
    return dict(zip(zip(rows["scan_id"].map(file_name), rows["label"], strict=True), rows["probability"], strict=True))


def studies_view(studies: Studies) -> dict[str, list[dict[str, Any]]]:
    """Return figures and tables of few-shot studies and transfer matrices."""
    few_shot = []
    for folder, study in studies.few_shot.items():
        names = list(study.initializations)
        drawn = looks(names, [name == study.baseline for name in names], [True] * len(names))
        figure = few_shot_figure(study, dict(zip(names, drawn, strict=True)))
        few_shot.append(
            {
                "path": str(folder),
                "study": study,
                "looks": drawn,
                "confidence": wording.percent(study.settings.confidence),
                "sentences": few_shot_sentences(study),
                "rows": few_shot_rows(study),
                "figure": Picture.of(figure, "Few-shot curves with intervals; the table has the numbers"),
            }
        )
    transfer = [
        {
            "path": str(folder),
            "study": study,
            "confidence": wording.percent(study.settings.confidence),
            "figures": [Picture.of(png, f"Site by site table, {title}") for title, png in transfer_figures(study)],
        }
        for folder, study in studies.transfer.items()
    ]
    return {"few_shot": few_shot, "transfer": transfer}
