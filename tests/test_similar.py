"""`fmct similar`: the nearest scans by cosine, never the scan itself, with what the manifest says of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import TinyCohort
from test_predict import head_nifti, package

from fmct.cli import main
from fmct.data.volumes import VolumeCache
from fmct.evaluation.montage import montage
from fmct.evaluation.similarity import nearest_scans


@pytest.fixture(scope="module")
def embedded(tiny: TinyCohort, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Weights, and the tiny cohort's embeddings by them, in which scan023 is scan005 again."""
    folder = tmp_path_factory.mktemp("similar")
    weights, table = package(folder / "w"), folder / "e.parquet"
    assert main(["embed", str(tiny.cache), "--weights", str(weights), "--out", str(table)]) == 0
    frame = pd.read_parquet(table).set_index("scan_id")
    frame.loc["scan023"] = frame.loc["scan005"] * 3  # cosines don't see lengths
    frame.reset_index().to_parquet(table, index=False)
    return weights, table


def similar(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> list[dict[str, object]]:
    capsys.readouterr()
    assert main(["similar", *map(str, arguments), "--json"]) == 0
    rows: list[dict[str, object]] = json.loads(capsys.readouterr().out)["similar"]
    return rows


def test_ranking_is_by_cosine_and_keeps_the_order_of_equals() -> None:
    bank = np.array([[1, 0], [0, 2], [3, 3], [-1, 0], [5, 5]], np.float32)
    ranked = nearest_scans(np.array([1, 1], np.float32), list("abcde"), bank, 4, without={"a"})
    assert [name for name, _ in ranked] == ["c", "e", "b", "d"]
    assert [similarity for _, similarity in ranked] == pytest.approx([1, 1, 0.5**0.5, -(0.5**0.5)])


def test_a_duplicate_comes_first_and_the_scan_itself_never(
    embedded: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = similar(capsys, "scan005", "--in", embedded[1], "--k", "30")
    assert len(rows) == 23
    assert rows[0]["scan_id"] == "scan023"
    assert rows[0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert "scan005" not in {row["scan_id"] for row in rows}
    values = [row["similarity"] for row in rows]
    assert values == sorted(values, reverse=True)  # type: ignore[type-var]


def test_a_scan_on_disk_is_embedded_and_not_its_own_neighbor(
    embedded: tuple[Path, Path], tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, _ = embedded
    one = head_nifti(tmp_path / "one.nii.gz")
    table = tmp_path / "e.parquet"
    assert main(["embed", str(one), "--weights", str(weights), "--out", str(table)]) == 0
    frame = pd.read_parquet(table)
    itself = frame["scan_id"][0]
    twin = frame.assign(scan_id="twin")
    pd.concat([frame, twin]).to_parquet(table, index=False)
    rows = similar(capsys, one, "--in", table, "--weights", weights)
    assert [row["scan_id"] for row in rows] == ["twin"]
    assert rows[0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert itself != "twin"
    arguments = [str(one), "--in", str(table), "--weights", str(weights), "--data", str(tiny.manifest)]
    assert "same_patient" not in similar(capsys, *arguments)[0]  # nobody knows
    assert main(["similar", *arguments, "--other-patients"]) == 2
    assert "doesn't say whose scan this is" in capsys.readouterr().err


def test_the_manifest_says_whose_scans_and_what_labels(
    embedded: tuple[Path, Path], tiny: TinyCohort, capsys: pytest.CaptureFixture[str]
) -> None:
    _, table = embedded
    rows = similar(capsys, "scan005", "--in", table, "--data", tiny.manifest, "--k", "23")
    same = [row["scan_id"] for row in rows if row["same_patient"]]
    assert same == ["scan004"]
    first = rows[0]
    assert (first["patient_id"], first["site"], first["label:ICH"]) == ("patient011", "site_b", 1)
    others = similar(capsys, "scan005", "--in", table, "--data", tiny.manifest, "--k", "23", "--other-patients")
    assert {row["scan_id"] for row in others} == {row["scan_id"] for row in rows} - {"scan004"}
    assert main(["similar", "scan005", "--in", str(table), "--data", str(tiny.manifest), "--k", "23"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "age" not in lines[0]  # of which nothing is known
    assert lines[0].split()[:3] == ["scan_id", "similarity", "patient_id"]
    assert len(lines) == 24
    assert sum("yes" in line for line in lines) == 1


def test_thumbnails_show_the_query_first(
    embedded: tuple[Path, Path], tiny: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = similar(capsys, "scan005", "--in", embedded[1], "--k", "2")
    out = tmp_path / "similar.png"
    assert (
        main(
            ["similar", "scan005", "--in", str(embedded[1]), "--k", "2", "--cache", str(tiny.cache), "--out", str(out)]
        )
        == 0
    )
    assert f"wrote {out}" in capsys.readouterr().out
    cache = VolumeCache.open(tiny.cache)
    titles = {"query: scan005": "scan005"}
    titles |= {f"{n}: {row['scan_id']}, {row['similarity']:.4f}": str(row["scan_id"]) for n, row in enumerate(rows, 1)}
    assert out.read_bytes() == montage({title: cache.read(scan_id) for title, scan_id in titles.items()})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["scan_005"], "did you mean scan005?"),
        (["scan005", "--out", "x.png"], "pictures need both --cache and --out"),
        (["scan005", "--out", "x.gif", "--cache", "."], "written as PNG"),
        (["scan005", "--other-patients"], "add --data MANIFEST"),
        (["."], "add --weights"),
    ],
)
def test_what_is_missing_is_said(
    embedded: tuple[Path, Path], capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert main(["similar", *arguments, "--in", str(embedded[1])]) == 2
    assert expected in capsys.readouterr().err


def test_tables_and_weights_that_do_not_fit_are_refused(
    embedded: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, table = embedded
    wrong = tmp_path / "wrong.parquet"
    pd.DataFrame({"scan_id": ["a", "b"], "e0000": [0.1, 0.2]}).to_parquet(wrong, index=False)
    scan = head_nifti(tmp_path / "head.nii.gz")
    assert main(["similar", str(scan), "--in", str(wrong), "--weights", str(weights)]) == 2
    assert "24 features, the table has 1" in capsys.readouterr().err
    pd.DataFrame({"scan_id": ["a"]}).to_parquet(wrong, index=False)
    assert main(["similar", "a", "--in", str(wrong)]) == 2
    assert "the feature table has no features" in capsys.readouterr().err
    assert main(["similar", "a", "--in", str(tmp_path / "gone.parquet")]) == 2
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing" / "note.txt").write_text("x")
    assert main(["similar", str(tmp_path / "nothing"), "--in", str(table), "--weights", str(weights)]) == 2
    assert "expected one scan, found 0" in capsys.readouterr().err
