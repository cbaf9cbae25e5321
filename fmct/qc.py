"""`fmct qc`: quality control of a cache in one HTML page."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field
from pydantic_settings import CliPositionalArg

from fmct.console.command import Command, main
from fmct.console.errors import ExitCode, UsageError
from fmct.console.files import atomic_path, write_text_atomically

if TYPE_CHECKING:
    from fmct.quality.page import Quality

WORST_PRINTED = 3


class Qc(Command):
    """Measure every scan of a cache and show on one page what stands out, a sample, histograms, counts and rejects.

    The page is one file that works offline. It shows pictures of heads, which are patient data. What stands out is
    unusual for this cache, not necessarily wrong.

    Example: fmct qc /scratch/cache --manifest data_manifests/archive.parquet --root /archive --out qc.html
    """

    cache: CliPositionalArg[Path] = Field(description="the cache, or the folder of one of its settings")
    out: Path = Field(Path("qc.html"), description="the page to write")
    manifest: Path | None = Field(
        None, description="what the cache was made from: adds sites and scanners, and what the index rejected"
    )
    root: Path | None = Field(
        None, description="folder that the paths of rejects are relative to, for their pictures; default the manifest's"
    )
    montage: int = Field(48, ge=0, le=500, description="show every n-th scan, at most so many")
    table: Path | None = Field(None, description="also write all figures, one row per scan: .parquet or .csv")
    workers: int = Field(0, ge=0, description="processes that measure; 0 and 1: this one")
    json_output: bool = Field(False, alias="json", description="print the numbers of the page as JSON")

    def run(self) -> ExitCode:
        """Make the page and print what stands out."""
        from fmct.data.manifest import read_manifest
        from fmct.data.presets import require_hu
        from fmct.data.volumes import VolumeCache
        from fmct.quality.page import Sources, make_page
        from fmct.quality.rejects import read_index_rejects

        self._check_outputs()
        if self.root is not None and not self.root.is_dir():
            raise UsageError("there is no such folder", self.root, "name the folder that holds the scans as --root")
        cache = VolumeCache.open(self.cache)
        require_hu(cache.settings, cache.folder)
        manifest = None if self.manifest is None else read_manifest(self.manifest, self.root)
        rejects = None if self.manifest is None else read_index_rejects(self.manifest)
        root = self.root if manifest is None else Path(manifest.attrs["root"])
        made = make_page(Sources(cache, manifest, rejects, root), self.montage, self.workers)
        write_text_atomically(self.out, made.html)
        if self.table is not None:
            with atomic_path(self.table) as temporary:
                if self.table.suffix == ".csv":
                    made.table.to_csv(temporary)
                else:
                    made.table.to_parquet(temporary)
        self._report(made, cache.folder)
        return ExitCode.DONE

    def _check_outputs(self) -> None:
        if self.out.is_dir():
            raise UsageError("the page's path is a folder", self.out, f"use --out {self.out / 'qc.html'}")
        if self.table is not None and self.table.suffix not in {".csv", ".parquet"}:
            raise UsageError("a table is .csv or .parquet", self.table, "give --table a name that ends so")

    def _report(self, made: Quality, folder: Path) -> None:
        if self.json_output:
            print(
                json.dumps({"cache": str(folder), "page": str(self.out), **made.numbers()}, indent=2, allow_nan=False)
            )
            return
        print(f"{len(made.table)} scans measured, {sum(one.count for one in made.rejected)} rejects read <- {folder}")
        if made.can_tell:
            print(f"{len(made.outliers)} stand out" + (", the worst:" if made.outliers else ""))
        else:
            print(f"too few scans to tell what stands out; {len(made.outliers)} can't be read")
        for one in made.outliers[:WORST_PRINTED]:
            print(f"  {one.scan_id}  {one.reasons[0]}")
        reasons = Counter(example.no_picture for one in made.rejected for example in one.examples if example.no_picture)
        if reasons:
            reason, count = reasons.most_common(1)[0]
            print(f"examples of rejects without a picture: {reasons.total()}; {count} of them: {reason}")
        print(f"wrote {self.out} ({len(made.html.encode()) / 1e6:.1f} MB): pictures of heads are patient data")


COMMAND = Qc

if __name__ == "__main__":
    sys.exit(main(COMMAND))
