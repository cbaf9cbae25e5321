"""`fmct embed`: features of scans."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from fmct.console.command import main
from fmct.console.errors import ExitCode, FmctError, UsageError
from fmct.console.files import atomic_path
from fmct.data.scan_inputs import ScanInputs, nothing_read
from fmct.models.pooling_kinds import POOLING, Pooling

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Embed(ScanInputs):
    """Embed scans: one row per scan, columns scan_id and e0000, e0001, ... (tokens after the final norm, pooled).

    Inputs are manifests (read from --cache if given, else from disk), cache folders, or plain DICOM folders and NIfTI
    files, which are preprocessed as the weights expect. What can't be embedded is listed, and the exit code is 3.

    Example: fmct embed scans/ --weights runs/pretrain_mae_smoke --out embeddings.parquet
    """

    weights: Path = Field(description="weight package, or a finished run")
    out: Path = Field(description="table to write (.parquet)")
    pooling: Pooling = Field("cls", description=POOLING)
    projector: Path | None = Field(
        None, description="also lay them out for TensorBoard's embedding projector, in this folder of events"
    )

    def run(self) -> ExitCode:
        """Embed and write the table."""
        import numpy as np
        import pandas as pd
        import torch

        from fmct.console.files import sha256
        from fmct.console.progress import track
        from fmct.data.feature_table import MADE
        from fmct.models.packaged import SUMS, as_batch, load_package, package_folder

        if self.out.suffix != ".parquet":
            raise UsageError("embeddings are written as Parquet", self.out, "give --out a name ending in .parquet")
        self.require_inputs()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = load_package(self.weights).to(device)
        rows: dict[str, NDArray[np.float32]] = {}
        failures: list[FmctError] = []
        with torch.inference_mode():
            for scan in track(self.scans(model.preprocessing), "embed"):
                if isinstance(scan, FmctError):
                    failures.append(scan)
                else:
                    volumes = as_batch(scan.volume.voxels).to(device)
                    rows[scan.scan_id] = model.features(volumes, self.pooling)[0].cpu().numpy()
        for failure in failures:
            print(f"not embedded: {failure.where}: {failure.what}", file=sys.stderr)
        if not rows:
            raise nothing_read(self.inputs, "embedded")
        matrix = np.stack(list(rows.values()))
        columns = {f"e{i:04d}": matrix[:, i] for i in range(matrix.shape[1])}
        table = pd.DataFrame({"scan_id": list(rows)} | columns)
        table.attrs = {MADE: {"pooling": self.pooling, "weights": sha256(package_folder(self.weights) / SUMS)}}
        with atomic_path(self.out) as temporary:
            table.to_parquet(temporary, index=False)
        print(f"wrote {len(rows)} embeddings of width {matrix.shape[1]} to {self.out}")
        if self.projector is not None:
            from fmct.evaluation.projector import known_of, write_projector

            write_projector(matrix, known_of(list(rows), self.inputs), self.projector, self.out.stem)
            print(f"for the projector: tensorboard --logdir {self.projector}")
        return ExitCode.SOME_REJECTED if failures else ExitCode.DONE


COMMAND = Embed

if __name__ == "__main__":
    sys.exit(main(COMMAND))
