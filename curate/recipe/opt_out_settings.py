"""Settings of `opt_outs`: where fetched signals lie, and for whom they are read."""

from __future__ import annotations

from pydantic import Field, model_validator

from stages.settings import Settings


class OptOutSettings(Settings):
    """`opt_outs:` signals that were fetched before, by domain, and the training assertion of the films themselves."""

    folder: str | None = None  # folder or URI with one folder for each domain
    agents: tuple[str, ...] = Field(("*",), min_length=1)  # user agents that robots.txt is read for
    url: str | None = None  # column of the manifest with the address of a film; None: its own URI
    c2pa: bool = False  # read the training assertion of C2PA from each film

    @model_validator(mode="after")
    def _something(self) -> OptOutSettings:
        if self.folder is None and not self.c2pa:
            raise ValueError("give a `folder` of fetched signals, or `c2pa: true`")
        if any(not agent.strip() for agent in self.agents):
            raise ValueError("agents are names such as GPTBot, or '*'")
        return self
