"""`fmct export`: write a run's weights as a portable package, fit to be handed to others."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field
from pydantic_settings import CliPositionalArg

from fmct.console.command import Command, main
from fmct.console.errors import ExitCode, FmctError, UsageError, require_empty_folder
from fmct.console.files import write_text_atomically

if TYPE_CHECKING:
    from fmct.evaluation.run_folder import Evaluation
    from fmct.models.packaged import PackagedModel
    from fmct.release.card import ReleaseCheck
    from fmct.release.lineage import Ancestor

LINE = "the command line of `fmct export`"


class Export(Command):
    """Take a run's weights out of the run, checked, with a card that says what they are for and what they learned from.

    Of a run that isn't finished, its last checkpoint is taken. The card has counts by site and scanner, the run's
    evaluations, the exact preprocessing and checksums – no path, no identifier.

    --for-release refuses weights that learned from scans with faces, manifests with a patient in two splits, and
    evaluations on patients that were trained on; --i-know overrides that, and the card says so.

    Example: fmct export runs/pretrain_mae_vitb --out weights/
    Example: fmct export runs/classify_cq500_finetune --out weights/ --for-release --onnx
    """

    run_folder: CliPositionalArg[Path] = Field(description="folder of a run")
    out: Path = Field(description="folder to write; must not hold files yet")
    onnx: bool = Field(False, description="write model.onnx too, checked against torch (needs fmct[onnx])")
    for_release: bool = Field(False, description="refuse what shouldn't be handed to others")
    i_know: bool = Field(False, description="with --for-release: write it all the same; the card says in spite of what")
    push_to_hub: str | None = Field(
        None, description="with --for-release: send it to this repository, OWNER/NAME (needs fmct[hub])"
    )
    public: bool = Field(False, description="with --push-to-hub: a repository that is made may be seen by all")

    def run(self) -> ExitCode:
        """Check, write, and check what was written."""
        from fmct.models.packaged import load_package

        self._check_flags()
        require_empty_folder(self.out)
        past, evaluations = self._history()
        check = self._gate(past, evaluations)
        self._copy()
        model = load_package(self.out)
        self._describe(model, past, evaluations, check)
        model = load_package(self.out)
        print(f'wrote {self.out}, {model.config.steps} steps; load it with fmct.load("{self.out}")')
        if self.push_to_hub:
            from huggingface_hub import HfApi

            from fmct.release.hub import push

            push(self.out, self.push_to_hub, private=not self.public, hub=HfApi())
            print(f"sent to {self.push_to_hub}")
        return ExitCode.DONE

    def _check_flags(self) -> None:
        if self.i_know and not self.for_release:
            raise UsageError("--i-know means nothing without --for-release", LINE, "add --for-release, or leave it out")
        if self.public and not self.push_to_hub:
            raise UsageError("--public means nothing without --push-to-hub", LINE, "leave it out")
        if self.onnx:
            from fmct.release.onnx_model import require_onnx

            require_onnx()
        if self.push_to_hub is not None:
            from fmct.release.hub import require_hub

            if not self.for_release:
                raise UsageError("what is sent to a hub is released", LINE, "add --for-release, which checks it first")
            require_hub(self.push_to_hub)

    def _history(self) -> tuple[Ancestor | None, dict[str, Evaluation]]:
        """Read where the weights come from and what they are worth; nothing, where there is only a package."""
        from fmct.evaluation.run_folder import read_run
        from fmct.experiment.run_record import EXPERIMENT
        from fmct.release.lineage import lineage

        if not (self.run_folder / EXPERIMENT).is_file():
            return None, {}
        past = lineage(self.run_folder)
        for ancestor in past.all:
            if ancestor.unknown:
                print(f"note: what {ancestor.name} learned from isn't known: {ancestor.unknown}", file=sys.stderr)
        return past, read_run(self.run_folder).evaluations

    def _gate(self, past: Ancestor | None, evaluations: dict[str, Evaluation]) -> ReleaseCheck | None:
        """Find what stands against a release.

        Raises:
            FmctError: listing it, unless --i-know.
        """
        from fmct.release.card import ReleaseCheck
        from fmct.release.gate import problems_of

        if not self.for_release:
            return None
        if past is None:
            problems = ["there is no run beside the weights: neither faces nor splits can be checked"]
        else:
            problems = problems_of(past, evaluations)
        if problems and not self.i_know:
            listed = "".join(f"\n  * {problem}" for problem in problems)
            raise FmctError(
                f"these weights shouldn't be released:{listed}",
                self.run_folder,
                "train on a cache made with --deface and on splits that `fmct split --check` proves disjoint; "
                "--i-know releases them all the same, and the card says so",
            )
        return ReleaseCheck(problems=tuple(problems), overridden=bool(problems))

    def _copy(self) -> None:
        """Copy the run's package, or make one of its last checkpoint."""
        from fmct.experiment.checkpoint_folder import CheckpointFolder
        from fmct.experiment.runs import CHECKPOINTS
        from fmct.models.package_files import CARD, CONFIG, SUMS, TRAINING, WEIGHTS, check_sums, package_folder

        if not (self.run_folder / "weights" / CONFIG).exists():
            checkpoint = CheckpointFolder(self.run_folder / CHECKPOINTS).newest_sound(aloud=True)
            if checkpoint is not None:
                from fmct.experiment.weights import export_checkpoint

                export_checkpoint(checkpoint, self.out)
                return
        source = package_folder(self.run_folder)
        check_sums(source)
        self.out.mkdir(parents=True, exist_ok=True)
        for name in (WEIGHTS, CONFIG, CARD, TRAINING, SUMS):
            if (source / name).is_file():
                shutil.copyfile(source / name, self.out / name)

    def _describe(
        self,
        model: PackagedModel,
        past: Ancestor | None,
        evaluations: dict[str, Evaluation],
        check: ReleaseCheck | None,
    ) -> None:
        """Write the card, training.json and model.onnx, and the checksums anew."""
        from fmct.models.package_files import CARD, ONNX, SUMS, TRAINING, write_sums
        from fmct.release.card import check_section, model_card

        (self.out / SUMS).unlink()
        if past is not None:
            metrics = {name: one.metrics for name, one in evaluations.items()}
            write_text_atomically(self.out / CARD, model_card(model.config, past.facts, metrics, check))
            if past.facts is not None:
                write_text_atomically(self.out / TRAINING, past.facts.model_dump_json(indent=2) + "\n")
        elif check is not None:
            card = (self.out / CARD).read_text(encoding="utf-8").rstrip()
            write_text_atomically(self.out / CARD, f"{card}\n\n## Release check\n\n{check_section(check)}\n")
        if self.onnx:
            from fmct.release.onnx_model import write_onnx

            difference = write_onnx(model, self.out / ONNX)
            print(f"wrote {self.out / ONNX}, at most {difference:.1e} from torch")
        write_sums(self.out)


COMMAND = Export

if __name__ == "__main__":
    sys.exit(main(COMMAND))
