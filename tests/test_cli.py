"""The command line: help, unknown commands and flags, three-line errors."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import Field

from fmct import __version__
from fmct.cli import COMMANDS, main
from fmct.console.command import Command, parse_command
from fmct.console.command import main as run_command
from fmct.console.errors import ExitCode, FmctError, UsageError, require_file
from fmct.console.files import atomic_path
from fmct.console.progress import track
from fmct.index import Index


class Count(Command):
    """Count to a number."""

    limit: int = Field(3, gt=0, description="where to stop")
    fail: bool = Field(False, description="fail")
    n: int = Field(1, description="a field of one letter")

    def run(self) -> ExitCode:
        if self.fail:
            raise FmctError("it broke", "the counter", "mend it")
        print(self.limit)
        return ExitCode.DONE


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)
    assert "no diagnosis" in out
    assert len(out.splitlines()) <= 40


def test_fit_is_a_command_like_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit"]) == 2
    assert "no experiment file" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_unknown_command_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["idnex"]) == 2
    assert "did you mean `fmct index`?" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_screen_of_help_with_an_example(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    module = importlib.import_module(f"fmct.{name.replace('-', '_')}")
    with pytest.raises(SystemExit) as stop:
        module.main(["--help"]) if name in {"fit", "submit"} else run_command(module.COMMAND, ["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert f"fmct {name}" in out
    assert "xample" in out
    assert len(out.splitlines()) <= 60


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--limt", "3"], "did you mean --limit?"),
        (["--limit", "many"], "limit"),
        (["--limit", "0"], "greater than 0"),
        (["extra"], "unknown argument extra"),
    ],
)
def test_wrong_flags_are_three_lines_and_exit_2(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(Count, arguments) == 2
    captured = capsys.readouterr()
    assert expected in captured.err
    assert len(captured.err.strip().splitlines()) == 3
    assert captured.out == ""


@pytest.mark.parametrize("arguments", [["--n", "7"], ["--n=7"], ["-n", "7"]])
def test_a_flag_of_one_letter_takes_either_dash(arguments: list[str]) -> None:
    assert parse_command(Count, arguments).n == 7  # type: ignore[attr-defined]


def test_expected_errors_have_no_traceback_unless_debug(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(Count, ["--fail"]) == 1
    plain = capsys.readouterr().err
    assert plain == "error: it broke\n  in the counter\n  Fix: mend it\n"
    assert run_command(Count, ["--fail", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["fmct.cli", "fmct.experiment.run_record"])
def test_importing_what_needs_no_torch_does_not_import_it(module: str) -> None:
    code = f"import sys, fmct, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_missing_file_suggests_its_neighbor(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").touch()
    with pytest.raises(UsageError, match=r"did you mean .*manifest\.csv"):
        require_file(tmp_path / "manifset.csv", "the manifest", "make one")


def test_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")

    def write_and_stop() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_stop()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_progress_prints_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track([1, 2, 3], "work")) == [1, 2, 3]
    assert "work: 3 in" in capsys.readouterr().err


@pytest.mark.parametrize("roots", [["a, b"], ["2019", "2020"], ["[x]"], ["true"], ['"q'], ["new\nline"]])
def test_paths_are_taken_as_they_are(roots: list[str]) -> None:
    command = parse_command(Index, [*roots, "--out", "m.csv"])
    assert isinstance(command, Index)
    assert command.roots == [Path(root) for root in roots]


def test_output_that_nobody_reads_to_its_end_is_no_error() -> None:
    code = (
        "from fmct.console.command import exit_code; from fmct.console.errors import ExitCode; import sys;"
        "sys.exit(exit_code(lambda: print('x' * 10**6) or ExitCode.DONE, debug=False))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0
