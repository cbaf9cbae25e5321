"""`fmct --print-completion`: a script that the shell takes, and that knows commands, flags and experiment keys."""

from __future__ import annotations

import subprocess

import pytest

from fmct.cli import COMMANDS, main


def test_bash_completes_commands_and_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-completion", "bash"]) == 0
    script = capsys.readouterr().out

    def completed(*words: str) -> set[str]:
        line = " ".join(f"'{word}'" for word in words)
        ask = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _shtab_fmct; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    assert completed("fmct", "pre") == {"predict", "preprocess"}
    assert completed("fmct", "") >= set(COMMANDS)
    assert "--deface" in completed("fmct", "preprocess", "--de")
    assert "--task.mask_ratio" in completed("fmct", "fit", "--task.mask_r")
    assert {"--fresh", "--print-config"} <= completed("fmct", "fit", "--")


def test_zsh_has_a_script_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-completion", "zsh"]) == 0
    assert capsys.readouterr().out.startswith("#compdef fmct")


@pytest.mark.parametrize("shells", [[], ["fish"], ["bash", "zsh"]])
def test_another_shell_is_an_error(shells: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-completion", *shells]) == 2
    assert "name one of bash, zsh" in capsys.readouterr().err
