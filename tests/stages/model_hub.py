"""A hub of models without a network: what is asked of it comes from a folder, into a cache laid out as the real one."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace


class Hub:
    """A repository and a cache of it on this machine; stands for the two calls of huggingface_hub."""

    def __init__(self, folder: Path, cache: Path, monkeypatch):
        self.folder, self.cache, self.commit = folder, cache, "a" * 40
        self.asked: list[str] = []
        monkeypatch.setattr("huggingface_hub.snapshot_download", self.download)
        monkeypatch.setattr("huggingface_hub.HfApi.model_info", self.info)

    def info(self, model: str, revision: str | None = None, timeout: float = 0) -> SimpleNamespace:
        return SimpleNamespace(sha=revision or self.commit)

    def download(self, model, revision=None, local_files_only=False, allow_patterns=()) -> str:
        place = self.cache / (revision or self.commit)
        if local_files_only:
            if not place.exists():
                raise FileNotFoundError(place)
            return str(place)
        for path in self.folder.rglob("*"):
            name = str(path.relative_to(self.folder))
            if path.is_file() and any(fnmatch(name, pattern) for pattern in allow_patterns):
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(path.read_bytes())
                self.asked.append(name)
        return str(place)
