"""Builds HTML as a tree of elements, so that text from the catalog is always text and never becomes markup."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeAlias
from xml.etree.ElementTree import Element, tostring

Child: TypeAlias = "str | Element | Iterable[Child] | None"

# Characters that XML forbids: HTML parsers replace them, and the drawing of plots fails on them.
FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def readable(text: str) -> str:
    """The text with the replacement character in the place of what no page can hold."""
    return FORBIDDEN.sub("\ufffd", text)


def node(tag: str, *children: Child, **attributes: str | None) -> Element:
    """An element. In names of attributes `_` stands for `-`, and one at the end is left out (`class_`); an attribute
    that is None is not set.
    """
    element = Element(tag)
    for name, value in attributes.items():
        if value is not None:
            element.set(name.rstrip("_").replace("_", "-"), readable(value))
    for child in children:
        put(element, child)
    return element


def put(element: Element, child: Child) -> None:
    """Appends text, an element or several of them."""
    if child is None:
        return
    if isinstance(child, Element):
        element.append(child)
    elif isinstance(child, str):
        if len(element):
            element[-1].tail = (element[-1].tail or "") + readable(child)
        else:
            element.text = (element.text or "") + readable(child)
    else:
        for each in child:
            put(element, each)


def html(element: Element) -> str:
    """The element as HTML."""
    return tostring(element, encoding="unicode", method="html")


def anchor(id: str) -> str:
    """A figure's id as the name of a place in the page: any text, without white space."""
    return re.sub(r"[^\w.-]", lambda found: f"_{ord(found[0]):x}", readable(id))
