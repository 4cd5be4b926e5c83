"""What README and CONTRIBUTING name exists: commands, options, recipes, make targets, files."""

import re
import shlex
from pathlib import Path

import pytest

from harness import cli, registry

ROOT = Path(__file__).resolve().parent.parent
TEXTS = {name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md", "sweeps/README.md")}
COMMANDS = [
    line.split("  #")[0].strip()
    for text in TEXTS.values()
    for line in text.splitlines()
    if line.startswith("    harness ") and "<" not in line
]


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_parse(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """--help after the whole line: tyro reads all of it first, and fails on a word it does not know."""
    words = shlex.split(line)[1:]
    with pytest.raises(SystemExit) as end:
        cli.call([*words, "--help"])
    assert end.value.code == 0, capsys.readouterr().err
    for word in words[1:]:
        if re.fullmatch(r"[a-z0-9_]+_e\d+\w*", word):
            registry.recipe(word)


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) >= 8


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for text in TEXTS.values() for word in re.findall(r"(?:    |`)make ([a-z]+)", text)}
    assert named <= targets
    assert {"demo", "test"} <= named


def test_files_that_are_named_exist() -> None:
    for text in TEXTS.values():
        for name in re.findall(r"`((?:harness|methods|sweeps|slurm|results|tests)/[\w./]+)`", text):
            assert (ROOT / name).exists(), name
