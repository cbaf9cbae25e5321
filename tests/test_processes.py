"""Work in several processes: one that dies takes nobody with it, and a full disk ends the run."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from fmct.data.guarded_child import Crashed, TimedOut, child_of_this_thread, close_child
from fmct.data.guarding import Guarded
from fmct.data.jobs import JobInParts
from fmct.data.processes import run_jobs


@dataclass(frozen=True)
class Squares:
    """Squares numbers; -1 breaks off, -2 kills its process, -3 finds the disk full."""

    numbers: Sequence[int]

    def run(self) -> list[int]:
        for number in self.numbers:
            if number == -1:
                raise ZeroDivisionError
            if number == -2:
                os._exit(1)
            if number == -3:
                raise OSError(28, "No space left on device")
        return [number * number for number in self.numbers]

    def singly(self) -> list[Squares]:
        return [Squares([number]) for number in self.numbers]

    def failed(self, error: BaseException) -> list[int]:
        return [number * 1000 for number in self.numbers]


def test_this_process_keeps_the_order() -> None:
    jobs = (Squares([number, number + 1]) for number in range(0, 20, 2))
    assert [square for part in run_jobs(jobs, 1) for square in part] == [number * number for number in range(20)]
    assert list(run_jobs([], 2)) == []


def test_only_the_piece_that_breaks_is_lost() -> None:
    jobs = [Squares([100, -1, 101]), Squares([200, -2, 201]), *(Squares([number]) for number in range(40))]
    done = sorted(square for part in run_jobs(jobs, 2) for square in part)
    kept = [*range(40), 100, 101, 200, 201]
    assert done == sorted([*(number * number for number in kept), -1000, -2000])


def test_a_full_disk_ends_the_run() -> None:
    with pytest.raises(OSError, match="No space left"):
        list(run_jobs([Squares([1]), Squares([-3]), Squares([2])], 2))
    with pytest.raises(OSError, match="No space left"):
        list(run_jobs([Squares([-3])], 0))


@dataclass(frozen=True)
class Deeds:
    """Does one thing after the other: a number is squared."""

    deeds: Sequence[str]
    log: Path | None = None

    def run(self) -> list[str]:
        return [said for part in self.parts() for said in part]

    def parts(self) -> Iterator[list[str]]:
        for deed in self.deeds:
            if self.log is not None:
                with self.log.open("a") as log:
                    log.write(f"{deed}\n")
            yield [do(deed)]

    def singly(self) -> list[Deeds]:
        return [Deeds([deed], self.log) for deed in self.deeds]

    def rest(self, first: int) -> Deeds:
        return Deeds(self.deeds[first:], self.log)

    def failed(self, error: BaseException) -> list[str]:
        return [f"{self.deeds[0]}: {type(error).__name__}"]


def do(deed: str) -> str:
    if deed == "segfault":
        ctypes.string_at(0)
    if deed == "hang":
        ctypes.PyDLL(None).sleep(1000)  # keeps the interpreter's lock, so that no other thread runs
    if deed == "exit":
        os._exit(3)
    if deed == "disk":
        raise OSError(28, "No space left on device")
    if deed == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if deed == "pid":
        return str(os.getpid())
    if deed.startswith("nap"):
        time.sleep(0.8)
        return deed
    return str(int(deed) ** 2)


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let child processes find this module."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    yield
    close_child()


@pytest.mark.usefixtures("importable")
def test_a_guarded_piece_that_ends_its_process_or_hangs_is_the_only_one_given_up(tmp_path: Path) -> None:
    assert isinstance(Deeds([]), JobInParts)
    deeds = ["1", "segfault", "2", "hang", "exit", "3", "killed", "4"]
    guarded = Guarded(Deeds(deeds, tmp_path / "log"), limit_s=1.0)
    assert guarded.run() == [
        "1", "segfault: Crashed", "4", "hang: TimedOut", "exit: Crashed", "9", "killed: Crashed", "16",
    ]  # fmt: skip
    # what was killed from outside may be innocent, so it is tried again; nothing else is
    assert Counter((tmp_path / "log").read_text().split()) == Counter([*deeds, "killed"])


@pytest.mark.usefixtures("importable")
def test_what_is_said_of_a_child_names_the_line_and_nothing_else() -> None:
    def caught(deed: str, limit_s: float = 30.0) -> Exception:
        with pytest.raises((Crashed, TimedOut)) as raised:
            list(child_of_this_thread().parts(Deeds([deed]), limit_s))
        return raised.value

    lines = Path(__file__).read_text().splitlines()
    native = next(number for number, line in enumerate(lines, 1) if "PyDLL(None)" in line)
    assert caught("exit").args == ("ended with status 3", False)
    assert caught("killed").args == ("died of SIGKILL, maybe for want of memory", True)
    assert caught("hang", 0.5).args == (f"not done after 0.5 s in test_processes.py, line {native}",)
    assert str(caught("segfault").args[0]).startswith("died of SIGSEGV in __init__.py, line ")  # of ctypes


@pytest.mark.usefixtures("importable")
def test_a_child_is_used_again_and_tells_of_errors() -> None:
    (first,) = Guarded(Deeds(["pid"]), 30.0).run()
    with pytest.raises(OSError, match="No space left"):
        Guarded(Deeds(["1", "disk", "2"]), 30.0).run()
    with pytest.raises(ValueError, match="invalid literal"):
        Guarded(Deeds(["word"]), 30.0).run()
    assert Guarded(Deeds(["pid"]), 30.0).run() == [first]
    assert int(first) != os.getpid()
    parts = Guarded(Deeds(["1", "hang"]), 30.0).parts()
    assert next(parts) == ["1"]
    parts.close()  # type: ignore[attr-defined]
    assert Guarded(Deeds(["pid"]), 30.0).run() != [first]  # one that was left at work isn't used again


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    code = f"""
import sys, os
sys.path.insert(0, {str(Path(__file__).parent)!r})
os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
from test_processes import Deeds
from fmct.data.guarding import Guarded
parts = Guarded(Deeds(["pid", "nap 1", "nap 2", "nap 3"]), 30.0).parts()
print(next(parts)[0], flush=True)
os.kill(os.getpid(), 9)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert said.returncode == -signal.SIGKILL, said.stderr
    status = Path(f"/proc/{int(said.stdout)}/stat")
    end = time.monotonic() + 20
    while status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.usefixtures("importable")
def test_what_a_lost_worker_had_reported_is_not_done_again(tmp_path: Path) -> None:
    naps = [f"nap{number}" for number in range(8)]
    fatal = [*naps, "killed", "5"]
    done = [said for part in run_jobs([Deeds(fatal, tmp_path / "log"), Deeds(["6"])], 2) for said in part]
    assert sorted(done) == sorted([*naps, "25", "36", "killed: KilledWorker"])
    counts = Counter((tmp_path / "log").read_text().split())
    assert [counts[nap] for nap in naps[:4]] == [1] * 4  # reported every two seconds
    assert counts["killed"] == 3  # with others, by itself, and at last alone
