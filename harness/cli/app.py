"""What all commands share: the application, its exit codes, and arguments that several take."""

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import UseAppendAction, arg

from harness.errors import BadCommand, HarnessError

Set = Annotated[tuple[str, ...], arg(metavar="PATH=VALUE"), UseAppendAction]
app = tyro.extras.SubcommandApp()


def call(words: list[str]) -> int:
    """Run one command line; returns the exit code."""
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"] or ["--help"]
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        code = app.cli(
            args=words,
            prog="harness",
            description="A benchmark and reproduction harness for self-supervised learning of images. "
            "Any command takes --debug, which shows the traceback of an error.",
        )
        return int(code or 0)
    except HarnessError as error:
        if debug:
            traceback.print_exc()
        print(f"harness: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except BrokenPipeError:  # the reader of a pipe has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        kind = type(error).__name__
        print(f"harness: crashed with {kind}: {error}; --debug shows where", file=sys.stderr)  # noqa: T201
        return 3
    except KeyboardInterrupt:
        print("harness: stopped; start the same command again to go on", file=sys.stderr)  # noqa: T201
        return 3


def say(text: str = "") -> None:
    print(text)  # noqa: T201


def runs_of(
    recipes: tuple[str, ...], seeds: int, first_seed: int, overrides: tuple[str, ...]
) -> list[tuple[str, int, tuple[str, ...]]]:
    if not recipes:
        raise BadCommand("name at least one recipe; `harness list` shows them")
    if seeds < 1 or first_seed < 0:
        raise BadCommand(f"--seeds is {seeds} and --first-seed {first_seed}; expected 1 or more, and 0 or more")
    return [(name, seed, overrides) for name in recipes for seed in range(first_seed, first_seed + seeds)]


def root_of(runs: Path | None) -> Path:
    from harness.runs import default_root

    return runs or default_root()
