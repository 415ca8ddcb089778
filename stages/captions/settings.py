"""The settings of the stage `caption`. No heavy imports, so that a recipe is checked quickly."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from stages.captions.prompts import check_template
from stages.settings import ModelSettings, Positions, Settings

AUDITS = ("words", "language", "repetition", "truncated", "refusal", "boilerplate", "source", "prompt", "clip_match")
ONLY = "caption"  # the name of a caption that is the only one of its clip
DEFAULT_PROMPT = "Describe what happens in this video in one or two sentences, without any introduction."
RESERVED = ("messages", "model", "stream", "n", "max_tokens", "temperature", "seed")  # keys that extra_body can't set


class FrameSettings(Settings):
    """`frames:` which frames of a clip the captioner sees."""

    positions: Positions = (0.1, 0.5, 0.9)  # shares of the clip's length
    long_side: int = Field(448, ge=16, le=4096)  # pixels


class ManifestSettings(Settings):
    """`manifest:` the column of the source's manifest or of a file for clips, or a file beside the source."""

    column: str | dict[str, str] = "caption"  # or one for each caption: {short: alt_text, long: description}
    # CSV, JSONL or Parquet with rows for clips, by `clip_id`, or for sources, by URI or name; goes before the column
    file: str | None = Field(None, min_length=1, exclude=True)
    sidecar: Literal[".txt", ".json"] | None = None  # NAME.txt (the text) or NAME.json (the keys are the columns)


class VisionLanguageSettings(Settings):
    """`model:` a vision-language model of transformers, run in this process; a name alone is enough."""

    name: str = Field(min_length=1)  # a local folder, or a name on the hub
    revision: str | None = None  # of the hub
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # auto: as stored on a GPU, float32 on a CPU


class ServerSettings(Settings):
    """`server:` any server with OpenAI's chat completions API: vLLM, SGLang, hosted ones."""

    base_url: str = Field(exclude=True)  # ends with /v1
    model: str = Field(min_length=1)
    # The environment variable that holds the key. The key itself never stands in a recipe.
    api_key_env: str | None = Field(None, exclude=True, pattern="^[A-Za-z_][A-Za-z0-9_]*$")
    concurrency: int = Field(16, ge=1, le=1024, exclude=True)  # clips asked about at a time
    requests_per_minute: float | None = Field(None, gt=0, exclude=True)
    timeout_seconds: float = Field(120.0, gt=0, exclude=True)  # of one request, from connecting to its last byte
    deadline_seconds: float = Field(600.0, gt=0, exclude=True)  # of one clip, all captions and retries together
    tries: int = Field(8, ge=1, le=100, exclude=True)  # requests for one caption at most
    backoff_seconds: float = Field(1.0, gt=0, exclude=True)  # before the first retry; doubled before each further one
    # added to the request as it is: top_p, chat_template_kwargs, ...
    extra_body: dict[str, Any] = Field(default_factory=dict)

    @field_validator("base_url")
    @classmethod
    def _an_address(cls, url: str) -> str:
        try:
            parts = urllib.parse.urlsplit(url)
            parts.port  # noqa: B018 raises for a port that is none
        except ValueError as error:
            raise ValueError(f"{url!r} is no address: {error}") from error
        if parts.username or parts.password:
            raise ValueError("no user or key in base_url, it is kept in the catalog: name a variable in api_key_env")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"expected an address such as http://localhost:8000/v1, got {url!r}")
        if parts.path.rstrip("/").endswith("/chat/completions"):
            raise ValueError(f"leave /chat/completions off, it is added; got {url!r}")
        return url.rstrip("/")

    @field_validator("extra_body")
    @classmethod
    def _not_reserved(cls, body: dict[str, Any]) -> dict[str, Any]:
        if taken := [key for key in body if key in RESERVED]:
            raise ValueError(f"{taken[0]!r} is not for extra_body: it has a setting of its own, or can't be changed")
        return body


class MatchSettings(Settings):
    """`match:` the OpenCLIP model that scores how well caption and frames fit."""

    model: str = Field(min_length=1)  # as in `embed`: a name of open_clip, a folder, or hf-hub:ORG/REPO
    pretrained: str | None = None  # a tag of open_clip or a local checkpoint; a folder holds its own


def caption_names(
    prompts: Mapping[str, str], source: Sequence[str], column: str | Mapping[str, str]
) -> tuple[str, ...]:
    """The names of a clip's captions."""
    if prompts:
        return tuple(prompts)
    return tuple(column) if list(source) == ["manifest"] and isinstance(column, Mapping) else (ONLY,)


def caption_column(name: str, names: Sequence[str]) -> str:
    """The column of a caption among those of a clip; the columns of its audit begin with it."""
    return "caption" if len(names) == 1 else f"caption_{name}"


class CaptionSettings(ModelSettings):
    """`caption:` where captions come from, how many a clip gets, and what is asked."""

    # One of them, or several: a caption that the first does not have is taken from the next.
    source: tuple[Literal["manifest", "model", "server"], ...] = Field(("manifest",), min_length=1)
    manifest: ManifestSettings = ManifestSettings()
    model: VisionLanguageSettings | None = None
    server: ServerSettings | None = None
    # name of the caption -> template; a single text is the template of the only caption
    prompts: dict[str, str] = Field(default_factory=dict)
    frames: FrameSettings = FrameSettings()
    max_tokens: int = Field(256, ge=1, le=100_000)
    temperature: float = Field(0.0, ge=0, le=2)
    seed: int = Field(0, ge=0, lt=2**31)
    match: MatchSettings | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of a clip's captions."""
        return caption_names(self.prompts, self.source, self.manifest.column)

    def template(self, name: str) -> str:
        return self.prompts.get(name, DEFAULT_PROMPT)

    def column_of(self, name: str) -> str:
        return caption_column(name, self.names)

    @field_validator("source", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("model", mode="before")
    @classmethod
    def _a_name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("prompts", mode="before")
    @classmethod
    def _a_text_alone(cls, value: Any) -> Any:
        return {ONLY: value} if isinstance(value, str) else value

    @field_validator("prompts")
    @classmethod
    def _templates(cls, prompts: dict[str, str]) -> dict[str, str]:
        for name, template in prompts.items():
            _check_name(name)
            try:
                check_template(template)
            except ValueError as error:
                raise ValueError(f"prompt {name!r}: {error}") from error
        return prompts

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(set(self.source)) < len(self.source):
            raise ValueError("source: each at most once")
        if "model" in self.source and "server" in self.source:
            raise ValueError("source: `model` or `server`, not both; give the second one a stage of its own with `as`")
        for name in ("model", "server"):
            if name in self.source and getattr(self, name) is None:
                raise ValueError(f"source {name!r} needs its settings: `{name}: {{...}}`")
            if name not in self.source and getattr(self, name) is not None:
                raise ValueError(f"`{name}` is set up but not among the sources; say `source: {name}`")
        self._check_columns()
        return self

    def _check_columns(self) -> None:
        column, names = self.manifest.column, self.names
        if isinstance(column, dict):
            for name in column:
                _check_name(name)
                if name not in names:
                    raise ValueError(f"manifest.column names caption {name!r}; there is {', '.join(names)}")
            if self.manifest.sidecar == ".txt":
                raise ValueError("manifest.sidecar: a .txt holds one text; several captions need '.json'")
        elif "manifest" in self.source and len(names) > 1:
            raise ValueError(f"manifest.column must say which column is which caption, as {{{names[0]}: COLUMN}}")
        made = [f"{self.column_of(name)}{end}" for name in names for end in ("", *("_" + audit for audit in AUDITS))]
        made += ["caption_seed", "caption_match_model", "caption_match_revision"]
        if twice := {one for one in made if made.count(one) > 1}:
            raise ValueError(f"the captions' names make column {min(twice)!r} twice: choose others")


def _check_name(name: str) -> None:
    if not (name.isascii() and name.isidentifier() and name == name.lower() and not name.startswith("_")):
        raise ValueError(f"{name!r} can't name a caption: small letters, digits and _, a letter first")
