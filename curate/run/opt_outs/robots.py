"""robots.txt: whether user agents may fetch a URL, and lines of it that say more (Content-Usage, License)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from curate.catalog.rights import ALLOWED, NONE_FOUND, NOT_ALLOWED
from curate.run.opt_outs.finding import FetchedText, Finding


@dataclass
class Group:
    """The user agents of a group, in small letters, and its Content-Usage lines."""

    agents: list[str] = field(default_factory=list)
    usages: list[str] = field(default_factory=list)


class Robots:
    """A robots.txt. Its rules are read by Protego; that leaves out what is not about crawling, which is read here."""

    def __init__(self, file: FetchedText):
        from protego import Protego

        self.file = file
        self._rules = Protego.parse(file.text)

    def may_fetch(self, url: str, agent: str) -> bool:
        return self._rules.can_fetch(url, agent)

    def finding(self, url: str, agents: Sequence[str]) -> Finding:
        """'not allowed' where one of the agents may not fetch it."""
        if not self.file.text.strip():
            return self.file.says(NONE_FOUND)
        refused = [agent for agent in agents if not self.may_fetch(url, agent)]
        return self.file.says(NOT_ALLOWED, ", ".join(refused)) if refused else self.file.says(ALLOWED)

    @cached_property
    def licences(self) -> list[str]:
        """What its License lines name."""
        return [value for name, value in _lines(self.file.text) if name == "license" and value]

    def usages(self, agent: str) -> list[str]:
        """The Content-Usage lines of the group that is meant for an agent, or of that for all."""
        wanted = agent.lower()
        own = [group for group in self._groups if wanted != "*" and any(a != "*" and a in wanted for a in group.agents)]
        return [usage for group in own or self._for_all for usage in group.usages]

    @property
    def _for_all(self) -> list[Group]:
        return [group for group in self._groups if "*" in group.agents]

    @cached_property
    def _groups(self) -> list[Group]:
        groups: list[Group] = []
        ruled = True  # whether the last group has a rule, so that the next User-agent begins another
        for name, value in _lines(self.file.text):
            if name == "user-agent":
                if ruled:
                    groups.append(Group())
                groups[-1].agents.append(value.lower())
                ruled = False
            elif groups:
                ruled = ruled or name in ("allow", "disallow", "content-usage")
                if name == "content-usage":
                    groups[-1].usages.append(value)
        return groups


def _lines(text: str) -> list[tuple[str, str]]:
    found = []
    for line in text.splitlines():
        name, colon, value = line.partition("#")[0].partition(":")
        if colon:
            found.append((name.strip().lower(), value.strip()))
    return found
