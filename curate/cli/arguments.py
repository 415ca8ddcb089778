"""Arguments that several commands take, and the types of arguments."""

from __future__ import annotations

import argparse
from typing import Protocol


class Commands(Protocol):
    """What argparse's `add_subparsers` gives: every file of this folder adds its commands to it."""

    def add_parser(self, name: str, *, help: str) -> argparse.ArgumentParser: ...


def add_catalog(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--catalog", required=True, type=filled, metavar="URI", help="folder or bucket of the catalog")


def positive(text: str) -> int:
    """The type of an argument that counts something: a whole number from 1 on."""
    number = int(text) if text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {text!r}")
    return number


def port(text: str) -> int:
    """The type of an argument that names a TCP port."""
    number = int(text) if text.isdigit() else 0
    if not 1 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, got {text!r}")
    return number


def filled(text: str) -> str:
    """The type of an argument that names a place: an unset variable of a shell is not the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("expected a folder or a URI, got an empty text")
    return text
