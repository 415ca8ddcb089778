"""The command `clipmill`: parses the command line, runs one command, and turns its errors into lines and exit codes.

Heavy packages are imported by the command that needs them, so that `clipmill --help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from curate.cli import catalog, curating, datasets, removal, training
from curate.errors import DamagedError, EngineError, UserError, nearest, printable
from curate.interrupts import STOPPED
from curate.query.columns.missing import missing_name

FAILED, USAGE = 1, 2
_CHOICE = re.compile(r"invalid choice: '(?P<word>[^']*)' \(choose from (?P<known>.*)\)")  # argparse says
STORAGE_PACKAGES = ("duckdb", "_duckdb", "_internal", "deltalake", "botocore", "aiobotocore")  # deltalake's _internal


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 all well; 1 finished with something failed or mismatched; 2 bad usage or settings."""
    # Threads of torch that spin while they wait crawl as soon as another process has a core: 130 times, measured.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    args = build_parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = args.command
    try:
        code = command(args)
        sys.stdout.flush()  # here, where a full disk is one line
        return code
    except UserError as error:
        print(f"clipmill: {printable(_with_hint(error, args))}", file=sys.stderr)
        return USAGE
    except EngineError as error:
        print(f"clipmill: {error}; what was finished is committed, the same command goes on", file=sys.stderr)
        return FAILED
    except DamagedError as error:
        print(f"clipmill: {printable(str(error))}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("clipmill: stopped; what was committed stays, the same command goes on", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # the reader of our output has gone (`clipmill sql … | head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if (line := _storage_error(error)) is None:
            raise
        print(f"clipmill: {line}", file=sys.stderr)
        return FAILED


def build_parser() -> argparse.ArgumentParser:
    """Every command, each with its function as the default of `command`."""
    parser = _Parser(
        prog="clipmill",
        description="From raw video to a trained video diffusion transformer, with every clip accounted for.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.set_defaults(command=lambda args: _version(args, parser))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for group in (curating, catalog, removal, datasets, training):
        group.add(commands)
    return parser


class _Parser(argparse.ArgumentParser):
    """Reports wrong usage in one line, by the command that it is about and with the word that is meant."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            options = re.findall(r"--[a-z][a-z-]*", self.format_help())
            self.error(f"unrecognized arguments: {' '.join(unknown)}{nearest(unknown[0].partition('=')[0], options)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        if choice := _CHOICE.search(message):
            message += nearest(choice["word"], re.findall(r"[\w-]+", choice["known"]))
        self.exit(USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _version(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    if args.version:
        import importlib.metadata

        print(importlib.metadata.version("clipmill"))
        return 0
    parser.print_help()
    return USAGE


def _with_hint(error: UserError, args: argparse.Namespace) -> str:
    """The error's line; where it is about a column or table that is not there, with the one that is meant."""
    if missing_name(error) is None:
        return str(error)
    from curate.query.columns.hints import explained

    return explained(error, getattr(args, "catalog", None), getattr(args, "pipelines", None))


def _storage_error(error: Exception) -> str | None:
    """One line for an error of a disk, a store or a damaged table; None for a bug, which keeps its traceback."""
    package = type(error).__module__.split(".")[0]
    if not isinstance(error, OSError) and package not in STORAGE_PACKAGES:
        return None
    line = " ".join(str(error).split())[:300]
    hint = "" if isinstance(error, OSError) else " (`clipmill verify` says what does not fit together)"
    return f"{line}{hint}"
