"""Manifests and experiment files damaged at random: read, or refused in three lines; nothing else, and at once."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
import pytest
from conftest import REPOSITORY

from fmct.console.errors import FmctError
from fmct.data.manifest import read_manifest
from fmct.experiment.loading import load_experiment
from fmct.experiment.sweep_file import read_sweep

PATIENCE_S = 5.0  # for one file: whatever takes longer hangs
NASTY = (
    *(
        "\0",
        "\ufeff",
        "\u202e",
        "\ud7ff",
        "\x1b[31m",
        "\t",
        "\r",
        '"',
        "'",
        ",",
        ";",
        "\n\n",
        "\\",
        "#",
        "%",
        "{{",
        "}}",
    ),
    *(
        "!!python/object/apply:os.system [exit]",
        "!!binary aGk=",
        "&a [*a, *a]",
        "*b",
        "<<: *c",
        "? x",
        "---\n",
        "...\n",
    ),
    *("1e999", "-1e999", ".nan", ".inf", "0x7fffffffffffffffffff", "9" * 400, "1_0", "0o17", "12:30:45", "2020-02-30"),
    *("null", "~", "true", "off", "[" * 60, "{" * 60, "- " * 60, "a: " * 60, "../" * 20, "/etc/passwd", "x" * 70_000),
    *("=cmd|' /C calc'!A0", "<script>", "%s%n", "$(id)", "${HOME}", "http://example.org/x.yaml"),
)
LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Damage a text in one to four ways: bytes, cells, lines, its end."""
    for _ in range(rng.randint(1, 4)):
        lines = content.splitlines(keepends=True) or [b""]
        at, row = rng.randrange(len(content) + 1), rng.randrange(len(lines))
        match rng.randrange(8):
            case 0:
                content = content[:at]
            case 1:
                content = content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]
            case 2:
                content = content[:at] + rng.choice(NASTY).encode() + content[at:]
            case 3:
                content = b"".join([*lines[:row], lines[rng.randrange(len(lines))], *lines[row:]])
            case 4:
                content = b"".join([*lines[:row], *lines[row + 1 :]])
            case 5:
                cells = lines[row].split(b",")
                cells[rng.randrange(len(cells))] = rng.choice(NASTY).encode()
                content = b"".join([*lines[:row], b",".join(cells), *lines[row + 1 :]])
            case 6:
                key, colon, _ = lines[row].partition(b":")
                content = b"".join(
                    [*lines[:row], key, colon, b" ", rng.choice(NASTY).encode(), b"\n", *lines[row + 1 :]]
                )
            case _:
                content = b"".join([*lines[:row], b" " * rng.randrange(1, 5), *lines[row:]])
    return content


def fuzz(read: Callable[[Path], object], originals: Iterable[bytes], path: Path, count: int, seed: int) -> Counter[str]:
    """Read damaged files; what comes out of it, counted."""
    rng, found, texts = random.Random(seed), Counter[str](), list(originals)
    for _ in range(count):
        path.write_bytes(mutated(rng.choice(texts), rng))
        start = time.monotonic()
        try:
            read(path)
            found["read"] += 1
        except FmctError:
            found["refused"] += 1
        except Exception as error:
            error.add_note(f"of {path.read_bytes()[:3000]!r}")
            raise
        assert time.monotonic() - start < PATIENCE_S, path.read_bytes()[:3000]
    return found


def manifests() -> list[bytes]:
    """A manifest with everything that one can have."""
    rows = {
        "scan_id": [f"s{number:015d}" for number in range(8)],
        "patient_id": [f"00{number // 2}" for number in range(8)],
        "path": [f"site/{number}.nii.gz" for number in range(8)],
        "format": ["nifti"] * 8,
        "site": ["a", "b"] * 4,
        "split": ["train", "train", "val", "val", "test", "test", "", ""],
        "slices": ["40"] * 8,
        "spacing_x": ["0.5"] * 8,
        "age": ["30", "", "90", "41", "5", "6", "7", "8"],
        "label:ICH": ["1", "0", "", "1", "0", "1", "0", ""],
        "soft:ICH": ["0.33", "0", "", "1", "0", "1", "0", ""],
    }
    return [pd.DataFrame(rows).to_csv(index=False).encode()]


def experiments() -> list[bytes]:
    """All shipped experiments, and one that grows without bound when its aliases are followed."""
    return [LAUGHS.encode(), *(path.read_bytes() for path in sorted((REPOSITORY / "experiments").glob("*.yaml")))]


READERS = {
    "manifest.csv": (read_manifest, manifests),
    "experiment.yaml": (lambda path: load_experiment([path], []), experiments),
    "sweep.yaml": (read_sweep, experiments),
}


@pytest.mark.parametrize("name", READERS)
def test_damaged_text_is_read_or_refused(tmp_path: Path, name: str) -> None:
    read, originals = READERS[name]
    found = fuzz(read, originals(), tmp_path / name, 400, seed=0)
    assert found["refused"] > 40
    assert found.total() == 400


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_damaged_text_is_read_or_refused_at_length(tmp_path: Path, name: str) -> None:
    read, originals = READERS[name]
    assert fuzz(read, originals(), tmp_path / name, 50_000 // len(READERS) + 1, seed=1).total() > 16_000
