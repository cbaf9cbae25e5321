"""`fmct COMMAND ...`: dispatch to the modules that hold the commands, and nothing more."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from fmct import __version__
from fmct.console.command import exit_code
from fmct.console.command import main as run_command
from fmct.console.errors import ExitCode, UsageError, nearest
from fmct.console.leaving import leave

COMMANDS = {
    "demo": "synthetic cohort to report.html and what it shows, on a laptop CPU",
    "phantom": "write synthetic head CTs with known findings as DICOM and NIfTI files",
    "index": "find scans, choose and reject them; write the manifest and rejects.csv",
    "label": "add label columns to a manifest",
    "split": "assign patients to train, val and test",
    "preprocess": "turn a manifest's scans into a cache of volumes ready for training",
    "cache": "what is in a cache; remove volumes, or export them as NIfTI",
    "qc": "quality control of a cache in one HTML page",
    "fit": "pretrain or adapt a model as an experiment file says",
    "submit": "hand a run to SLURM, in a job that goes on until it is done",
    "fewshot": "curves of what a few labeled patients give, for several initializations",
    "sweep": "a grid of runs in one file: locally or as SLURM arrays; transfer matrices, scaling studies",
    "evaluate": "predictions.parquet and metrics.json of a run on a manifest",
    "shortcuts": "how well embeddings tell site and scanner, which a model could lean on",
    "embed": "features of scans: a manifest, or plain DICOM and NIfTI paths",
    "predict": "probabilities of new scans, and maps of what they rest on",
    "similar": "the scans most like one, by their embeddings",
    "report": "compare runs in one HTML file",
    "export": "write a run's weights as a package, with a card; check it for release; ONNX; hub",
    "doctor": "what would not work on this machine, and how to mend it",
    "schema": "the JSON schema of experiment files, for editors",
    "bench": "measure this machine, as ratios to a stated baseline in one run",
    "import-reference": "turn a published FM-HCT checkpoint into a weight package",
}


def usage() -> str:
    """Return the text of `fmct --help`."""
    lines = [f"  {name:<18}{summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            f"fmct {__version__} – head-CT foundation models. Research use only; no diagnosis.",
            "",
            "usage: fmct COMMAND [options]        (fmct COMMAND --help shows a command's options)",
            "",
            *lines,
            "",
            'completion of flags: eval "$(fmct --print-completion bash)", or zsh',
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Dispatch to a command and return its exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(usage())
        return int(ExitCode.DONE)
    if arguments[0] == "--version":
        print(__version__)
        return int(ExitCode.DONE)
    if arguments[0] == "--print-completion":
        return exit_code(lambda: print_completion(arguments[1:]), debug=False)
    name = arguments[0]
    if name not in COMMANDS:
        guess = nearest(name, COMMANDS)
        fix = f"did you mean `fmct {guess}`?" if guess else "`fmct --help` lists the commands"
        print(f"error: unknown command {name}\n  in the command line of `fmct`\n  Fix: {fix}", file=sys.stderr)
        return int(ExitCode.USAGE)
    module = importlib.import_module(f"fmct.{name.replace('-', '_')}")
    if name in {"fit", "submit"}:  # their flags are the experiment's keys
        return int(module.main(arguments[1:]))
    return run_command(module.COMMAND, arguments[1:])


def print_completion(shells: Sequence[str]) -> ExitCode:
    """Print a script that completes commands and flags.

    Raises:
        UsageError: when the shell isn't named, or not known.
    """
    from fmct.console.completion import SHELLS, completion

    if len(shells) != 1 or shells[0] not in SHELLS:
        raise UsageError("no such shell", "fmct --print-completion SHELL", f"name one of {', '.join(SHELLS)}")
    print(completion(shells[0], COMMANDS))
    return ExitCode.DONE


def entry() -> None:
    """Run as the program `fmct`."""
    leave(main())


if __name__ == "__main__":
    entry()
