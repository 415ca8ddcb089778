"""Notes where an input comes through a link to a folder, so that both spellings of a path are one source."""

from __future__ import annotations

import os


class FolderLinks:
    """`found` maps each link to a folder that was met to the folder that it leads to."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self._last = ""

    def note(self, folder: str) -> None:
        """Notes the part of a folder's path that is a link, if there is one. Links to files are names of their own."""
        if folder == self._last:  # files of one folder come one after the other
            return
        self._last, link, real = folder, folder, os.path.realpath(folder)
        while link != real and os.path.basename(link) == os.path.basename(real):
            above = os.path.dirname(link)
            if os.path.realpath(above) != os.path.dirname(real):
                break  # the link has the name of the folder that it leads to
            link, real = above, os.path.dirname(real)
        try:
            (link + real).encode()
        except UnicodeEncodeError:  # no table can hold it
            return
        if link != real:
            self.found[link] = real
