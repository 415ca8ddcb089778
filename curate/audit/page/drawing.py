"""Draws Vega-Lite specifications as SVG with vl-convert, in a process of its own: its faults cost the plots alone."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

PACKAGE = "vl_convert"
INSTALL = "pip install 'clipmill[audit]'"
VEGA_LITE = "5.20"
SECONDS = 600  # until the drawing of one page is given up
CHILD = f"""
import json, sys
import vl_convert
for line in sys.stdin:
    svg = vl_convert.vegalite_to_svg(json.loads(line), vl_version="{VEGA_LITE}", allowed_base_urls=[])
    print(json.dumps(svg), flush=True)
"""
TAGS = {"svg", "g", "path", "text", "line", "rect", "tspan"}
ATTRIBUTES = {
    "width", "height", "viewBox", "fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-miterlimit", "opacity",
    "fill-opacity", "transform", "d", "x", "y", "x2", "y2", "dx", "dy", "text-anchor", "font-family",
    "font-size", "font-weight", "class", "display",
}  # fmt: skip


class NotDrawn(Exception):
    """Why there are no plots."""


def draw(specs: Sequence[Mapping[str, Any]]) -> list[ElementTree.Element]:
    """An <svg> for each specification. NotDrawn where the package is missing or fails."""
    if not specs:
        return []
    if importlib.util.find_spec(PACKAGE) is None:
        raise NotDrawn(f"plots need the package vl-convert-python: {INSTALL}")
    lines = "".join(json.dumps(spec) + "\n" for spec in specs)
    try:
        # -I: no module of the folder that the command runs in is taken for one of Python's.
        done = subprocess.run(
            [sys.executable, "-I", "-c", CHILD], input=lines, capture_output=True, encoding="utf-8", timeout=SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotDrawn(f"plots could not be drawn: {error}") from error
    drawn = done.stdout.splitlines()
    if done.returncode or len(drawn) != len(specs):
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise NotDrawn(f"plots could not be drawn: {said}")
    return [plain(json.loads(line)) for line in drawn]


def plain(svg: str) -> ElementTree.Element:
    """The drawing as elements of HTML, with nothing in it but shapes and text."""
    return _copied(ElementTree.fromstring(svg))


def _copied(found: ElementTree.Element) -> ElementTree.Element:
    kept = ElementTree.Element(found.tag.rpartition("}")[2])
    kept.text, kept.tail = found.text, found.tail
    for name, value in found.attrib.items():
        if name in ATTRIBUTES:
            kept.set(name, value)
    kept.extend(_copied(child) for child in found if child.tag.rpartition("}")[2] in TAGS)
    return kept
