"""RSL 1.0: licences for machines, in the XML file that a License line of robots.txt names, or in rsl.xml."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit
from xml.etree import ElementTree

from curate.catalog.rights import ALLOWED, CONSTRAINED, NONE_FOUND, NOT_ALLOWED
from curate.errors import first_line
from curate.run.opt_outs.domain_folder import RSL, DomainFolder
from curate.run.opt_outs.finding import FetchedText, Finding, strictest
from curate.run.opt_outs.patterns import matches, path_of
from curate.run.opt_outs.robots import Robots

TRAINING = {"all", "ai-all", "ai-train"}  # usages that hold the training of a model
FREE = ("", "free")  # types of payment that ask for nothing


class Terms(NamedTuple):
    """A `content` of a file: the host it is about (None: the file's own), its pattern, and what its licences say."""

    host: str | None
    pattern: str
    answer: str


class RslTerms:
    """What the RSL files of a domain say."""

    def __init__(self, folder: DomainFolder, robots: Robots | None):
        self.files: list[tuple[FetchedText, list[Terms]]] = []
        self.unread: Finding | None = None  # of a licence that robots.txt names and that was not fetched
        self.robots = robots
        base = f"https://{folder.domain}/"
        named = [urlsplit(urljoin(base, text)) for text in robots.licences] if robots is not None else []
        names = {RSL: None} | {url.path.lstrip("/"): url for url in named if url.hostname == folder.domain and url.path}
        read = False
        for name in names:
            file = folder.text(name)
            if file is not None and file.text.strip():
                try:
                    self.files.append((file, list(_contents(file.text))))
                    read = True
                except (ElementTree.ParseError, ValueError) as error:
                    folder.complain(name, f"no RSL file ({first_line(error)})")
            elif file is not None and name == RSL:
                self.files.append((file, []))
        if robots is not None and robots.licences and not read:
            self.unread = robots.file.says(CONSTRAINED, f"License: {robots.licences[0]}, not fetched")

    def finding(self, url: str) -> Finding | None:
        host, path = urlsplit(url).hostname, path_of(url)
        found: list[Finding] = [self.unread] if self.unread is not None else []
        for file, terms in self.files:
            about = [one for one in terms if one.host in (None, host) and matches(one.pattern, path)]
            best = max(about, key=lambda one: len(one.pattern), default=None)
            found.append(file.says(best.answer, best.pattern) if best is not None else file.says(NONE_FOUND))
        if not found and self.robots is not None:
            found = [self.robots.file.says(NONE_FOUND)]
        return strictest(found)


def _contents(text: str) -> Iterator[Terms]:
    """The contents of a file, whatever its namespace. ValueError for another root, or for entities of its own."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError("it declares entities")
    root = ElementTree.fromstring(text.encode())
    if _name(root) != "rsl":
        raise ValueError(f"its root is {_name(root)}")
    for content in root.iter():
        if _name(content) != "content":
            continue
        url = content.get("url") or "/"
        parts = urlsplit(url)
        pattern = (parts.path or "/") + (f"?{parts.query}" if parts.query else "") if parts.scheme else url
        yield Terms(parts.hostname, pattern if pattern.startswith(("/", "*")) else f"/{pattern}", _answer(content))


def _answer(content: ElementTree.Element) -> str:
    """The best that any of the licences of a content gives."""
    answers = [_licence(each) for each in content.iter() if _name(each) == "license"]
    for answer in (ALLOWED, CONSTRAINED, NOT_ALLOWED):
        if answer in answers:
            # With a server, even a free licence is to be got there.
            return CONSTRAINED if answer == ALLOWED and content.get("server") else answer
    return NONE_FOUND


def _licence(licence: ElementTree.Element) -> str:
    """Whether a licence lets a model be trained: what it prohibits goes before what it permits."""
    permitted: set[str] | None = None
    terms = False
    for part in licence:
        kind, words = part.get("type") or "usage", set((part.text or "").lower().replace(",", " ").split())
        if _name(part) == "prohibits" and kind == "usage" and words & TRAINING:
            return NOT_ALLOWED
        if _name(part) == "permits" and kind == "usage":
            permitted = (permitted or set()) | words
        elif _name(part) in ("permits", "prohibits") and words:
            terms = True  # of users or places
        elif _name(part) == "payment":
            terms = terms or (part.get("type") or "").lower() not in FREE
    if permitted is not None and not permitted & TRAINING:
        return NOT_ALLOWED
    return CONSTRAINED if terms else ALLOWED


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""
