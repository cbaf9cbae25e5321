"""`fmct embed`: features of scans."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg

from fmct.console.command import Command, main, names_in
from fmct.console.errors import ExitCode, FmctError, UsageError, require_file
from fmct.console.files import atomic_path

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fmct.data.presets import AnySettings
    from fmct.data.rules import Rules
    from fmct.data.scan import Scan
    from fmct.data.volume_file import Voxels

    Scans = Iterator[tuple[str, Voxels | FmctError]]


class Embed(Command):
    """Embed scans: one row per scan, columns scan_id and e0000, e0001, ... (tokens after the final norm, pooled).

    Inputs are manifests (read from --cache if given, else from disk), cache folders, or plain DICOM folders and NIfTI
    files, which are preprocessed as the weights expect. What can't be embedded is listed, and the exit code is 3.

    Example: fmct embed scans/ --weights runs/pretrain_mae_smoke --out embeddings.parquet
    """

    inputs: CliPositionalArg[list[Path]] = Field(description="manifests, cache folders, DICOM folders, NIfTI files")
    weights: Path = Field(description="weight package, or a finished run")
    out: Path = Field(description="table to write (.parquet)")
    cache: Path | None = Field(None, description="cache that holds the manifests' scans")
    root: Path | None = Field(None, description="folder that the manifests' paths are relative to")
    pooling: Literal["cls", "mean", "max", "mean+max"] = Field(
        "cls", description="what stands for a scan: its CLS token; mean or max over its patches; both, twice as wide"
    )
    skip_rules: str = Field(
        "", description="for plain paths: codes of rules to switch off, separated by commas, as `fmct index` takes them"
    )

    def run(self) -> ExitCode:
        """Embed and write the table."""
        import numpy as np
        import pandas as pd
        import torch

        from fmct.console.progress import track
        from fmct.models.packaged import as_batch, load_package

        if self.out.suffix != ".parquet":
            raise UsageError("embeddings are written as Parquet", self.out, "give --out a name ending in .parquet")
        for path in self.inputs:
            require_file(path, "the input", "name manifests, cache folders, DICOM folders or NIfTI files")
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = load_package(self.weights).to(device)
        rows: dict[str, NDArray[np.float32]] = {}
        failures: list[str] = []
        with torch.inference_mode():
            for scan_id, voxels in track(self._scans(model.preprocessing), "embed"):
                if isinstance(voxels, FmctError):
                    failures.append(f"{voxels.where}: {voxels.what}")
                elif scan_id not in rows:
                    rows[scan_id] = model.features(as_batch(voxels).to(device), self.pooling)[0].cpu().numpy()
        for failure in failures:
            print(f"not embedded: {failure}", file=sys.stderr)
        if not rows:
            raise UsageError("no scan could be embedded", ", ".join(map(str, self.inputs)), "see the reasons above")
        matrix = np.stack(list(rows.values()))
        columns = {f"e{i:04d}": matrix[:, i] for i in range(matrix.shape[1])}
        with atomic_path(self.out) as temporary:
            pd.DataFrame({"scan_id": list(rows)} | columns).to_parquet(temporary, index=False)
        print(f"wrote {len(rows)} embeddings of width {matrix.shape[1]} to {self.out}")
        return ExitCode.SOME_REJECTED if failures else ExitCode.DONE

    def _scans(self, settings: AnySettings) -> Scans:
        from fmct.data.rules import parse_rules

        for path in self.inputs:
            if path.suffix in {".csv", ".parquet"}:
                yield from self._of_manifest(path, settings)
            elif path.is_dir() and (list(path.glob("index.parquet")) or list(path.glob("*/index.parquet"))):
                yield from of_cache(path, settings)
            else:
                yield from of_disk([path], settings, parse_rules(names_in(self.skip_rules), ()))

    def _of_manifest(self, path: Path, settings: AnySettings) -> Scans:
        from fmct.data.cache_building import load_row
        from fmct.data.manifest import read_manifest
        from fmct.data.rules import codes_in
        from fmct.data.volume_making import make_volume

        frame = read_manifest(path, self.root)
        if self.cache is not None:
            yield from of_cache(self.cache, settings, frame["scan_id"].tolist())
            return
        found: dict[Path, list[Scan]] = {}
        for row in frame.to_dict("records"):
            try:
                stack = load_row(row, Path(frame.attrs["root"]), found)
                yield (
                    row["scan_id"],
                    make_volume(stack, settings, row["path"], codes_in(row["skipped_rules"])).voxels,
                )
            except FmctError as error:
                yield row["scan_id"], error


def of_cache(folder: Path, settings: AnySettings, scan_ids: list[str] | None = None) -> Scans:
    """Read scans of a cache.

    Raises:
        UsageError: when the cache was made with other preprocessing.
    """
    from fmct.data.presets import check_same_settings
    from fmct.data.volumes import VolumeCache

    cache = VolumeCache.open(folder)
    fix = "embed the scans from disk, or preprocess them with the package's settings"
    check_same_settings(settings, cache.settings, cache.folder, fix)
    for scan_id in cache.index.index if scan_ids is None else scan_ids:
        try:
            yield scan_id, cache.read(scan_id)
        except FmctError as error:
            yield scan_id, error


def of_disk(paths: list[Path], settings: AnySettings, rules: Rules) -> Scans:
    """Find scans below some paths and preprocess them."""
    from fmct.data.series import find_scans
    from fmct.data.volume_making import make_volume

    scans, rejects = find_scans(paths, rules)
    for reject in rejects:
        yield "", FmctError(f"{reject.code} ({reject.detail})", str(reject.path), "see the codes in the README")
    for scan in scans:
        try:
            yield scan.scan_id, make_volume(scan.load(), settings, str(scan.path), rules.skipped).voxels
        except FmctError as error:
            yield scan.scan_id, error


COMMAND = Embed

if __name__ == "__main__":
    sys.exit(main(COMMAND))
