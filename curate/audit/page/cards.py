"""Clips to look at: their pictures with why they are kept or dropped, and with their captions."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element

from curate.audit.figure import Figure
from curate.audit.page.html import node
from curate.audit.page.values import heading, number, text

JUDGED = {"clip_id", "verdict", "failed_gates", "uri"}  # columns of a figure of clips to look at
CAPTIONED = {"clip_id", "text"}  # and of one of samples of captions


class Pictures:
    """The thumbnails that a page may still show: it is bounded in their number and bytes."""

    def __init__(self, jpegs: Mapping[str, bytes], most: int = 600, most_bytes: int = 8 << 20):
        self.jpegs = jpegs
        self.left, self.bytes_left = most, most_bytes
        self.left_out = 0

    def image(self, clip_id: str, alt: str) -> Element:
        """The picture, or a line that says why there is none."""
        jpeg = self.jpegs.get(clip_id)
        if jpeg is None:
            return node("p", "no thumbnail", class_="nothing")
        if self.left < 1 or self.bytes_left < len(jpeg):
            self.left_out += 1
            return node("p", "picture left out: the page is full", class_="nothing")
        self.left -= 1
        self.bytes_left -= len(jpeg)
        return node("img", src=f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}", alt=alt)


def cards(figure: Figure, pictures: Pictures) -> list[Element]:
    """The clips of a figure as pictures with text below; nothing for figures of other things."""
    if set(figure.columns) >= JUDGED:
        return list(_judged(figure, pictures))
    if set(figure.columns) >= CAPTIONED:
        return [_grid((_captioned(row, pictures) for row in figure.records()), "captioned")]
    return []


def _judged(figure: Figure, pictures: Pictures) -> Iterator[Element]:
    """A part for each signal, in which each kind of pick has a row."""
    for signal, rows in groupby(figure.records(), key=lambda row: row.get("signal") or ""):
        kinds = []
        for kind, clips in groupby(rows, key=lambda row: row.get("kind") or ""):
            name = kind if not signal else f"{signal}: {kind}"
            kinds += [node("h4", name), _grid((_clip(row, pictures) for row in clips), "clips")]
        if signal:
            yield node("details", node("summary", f"{signal}"), kinds, open="open", class_="signal")
        else:
            yield node("div", kinds)


def _grid(items: Iterator[Element], kind: str) -> Element:
    return node("ul", (node("li", each) for each in items), class_=f"grid {kind}")


def _clip(row: Mapping[str, Any], pictures: Pictures) -> Element:
    dropped = row["verdict"] == "dropped"
    why = "kept" if not dropped else f"dropped by {text(row['failed_gates'])}"
    lines = [node("strong", why, class_=row["verdict"] if dropped else "kept")]
    if row.get("value") is not None:
        lines.append(node("span", f"{row['signal']} {number(row['value'])}"))
    return _pictured(row, pictures, _place(row), [*lines, node("span", _place(row), class_="place")])


def _captioned(row: Mapping[str, Any], pictures: Pictures) -> Element:
    said = [str(row.get("of_column") or ""), str(row.get("kind") or "")]
    said += [f"{heading(name)} {number(row[name], name)}" for name in ("words", "match") if row.get(name) is not None]
    if row.get("kept") is not None:
        said.append("kept" if row["kept"] else "dropped")
    facts = node("span", " · ".join(filter(None, said)), class_="place")
    return _pictured(row, pictures, f"clip {row['clip_id']}", [node("q", text(row["text"])), facts])


def _pictured(row: Mapping[str, Any], pictures: Pictures, alt: str, lines: list[Element]) -> Element:
    under = node("figcaption", lines, node("code", row["clip_id"]))
    return node("figure", pictures.image(row["clip_id"], alt), under)


def _place(row: Mapping[str, Any]) -> str:
    name = PurePosixPath(row["uri"] or "source unknown").name
    if row.get("start_s") is None or row.get("end_s") is None:
        return name
    return f"{name} {row['start_s']:.2f} to {row['end_s']:.2f} s"
