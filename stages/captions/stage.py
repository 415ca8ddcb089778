"""The stage `caption`: takes the captions of a clip from a manifest, a model or a server, and audits their texts."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from stages.base import ClipError, ClipStage, Column, Context, Needs, SettingsError, one_line
from stages.captions import audit, prompts
from stages.captions.answer_cache import AnswerCache
from stages.captions.answers import Answer, CaptionSource, Deadline
from stages.captions.async_batch import Answers, stream_concurrently
from stages.captions.columns import caption_columns
from stages.captions.language import language
from stages.captions.manifest import ManifestCaptions
from stages.captions.match import ClipMatch
from stages.captions.pace import Clock
from stages.captions.settings import CaptionSettings, caption_column, caption_names
from stages.frames import FrameRequest
from stages.pretrained.devices import on_gpu
from stages.unit import Clip, Row, Unit

VERSION = 1  # changes whenever the same answers would be audited otherwise


class Caption(ClipStage[CaptionSettings]):
    """The captions of a clip, and an audit of each. A clip gets all of its captions, or is failed with the reason."""

    name: ClassVar[str] = "caption"
    default_table: ClassVar[str] = "captions"

    def __init__(self, settings: CaptionSettings, clock: Clock | None = None):
        super().__init__(settings)
        self.clock = clock or Clock()
        self.sources = [_make_source(kind, settings, self.clock) for kind in settings.source]
        self.match = ClipMatch(settings.match, settings.device) if settings.match else None
        self.cache: AnswerCache | None = None
        self.server = settings.server if "server" in settings.source else None
        networks = "model" in settings.source or self.match is not None
        gpus = 1.0 if networks and on_gpu(settings.device) else 0.0
        self._request = self._frames_wanted()
        # One worker asks a server: concurrency and rate limit are those of the run, not of each worker.
        self.needs = Needs(1.0 if networks else 0.1, gpus, workers=1 if self.server else None)
        self._known_fields: set[str] = set()  # prompt fields that some clip had

    def _frames_wanted(self) -> FrameRequest | None:
        frames = self.settings.frames
        request: FrameRequest | None = FrameRequest(frames.positions, frames.long_side)
        if self.settings.source == ("manifest",):
            request = self.match.own_request(frames.positions) if self.match else None
        if self.match:
            self.match.request = request
        return request

    def wants(self) -> FrameRequest | None:
        return self._request

    @classmethod
    def signals_of(cls, settings: Mapping[str, Any]) -> dict[str, Column]:
        column = settings.get("manifest", {}).get("column", "caption")
        names = caption_names(settings.get("prompts") or {}, settings.get("source", ["manifest"]), column)
        return caption_columns([caption_column(name, names) for name in names], bool(settings.get("match", True)))

    def signals(self) -> dict[str, Column]:
        return caption_columns([self.settings.column_of(name) for name in self.settings.names], self.match is not None)

    def versions(self) -> dict[str, str]:
        parts = [
            str(VERSION),
            *(source.content() for source in self.sources),
            self.match.content() if self.match else "",
        ]
        return {"caption": "+".join(part for part in parts if part)}

    def check(self) -> None:
        if importlib.util.find_spec("py3langid") is None:
            raise SettingsError("this needs the package py3langid: pip install 'clipmill[caption]'")
        for source in self.sources:
            source.check()
        if self.match:
            self.match.check()

    def prepare(self, context: Context) -> None:
        """Answers are cached below the catalog until their rows are committed."""
        if any(source.costly for source in self.sources):
            self.cache = AnswerCache(context.catalog_uri, self.table)
            self.keeps_answers = True
        if context.sources and len(self.sources) == 1 and isinstance(self.sources[0], ManifestCaptions):
            self.sources[0].check_sources(context.sources, self.settings.names)

    def source_columns(self) -> tuple[str, ...]:
        """Those that captions are taken from, and those that prompts may name."""
        names: list[str] = []
        for source in self.sources:
            for name in self.settings.names:
                if isinstance(source, ManifestCaptions):
                    names += [column] if (column := source.column(name)) else []
                else:
                    names += sorted(prompts.check_template(self.settings.template(name)))
        return tuple(dict.fromkeys(names))

    def clip_file(self) -> str | None:
        return self.settings.manifest.file if "manifest" in self.settings.source else None

    def committed(self, clip_ids: Collection[str]) -> None:
        """`clip_ids` are clips done, not failed ones: the captions that those do have are for the next try."""
        if self.cache:
            self.cache.clear(clip_ids)

    def left_over(self) -> set[str]:
        """Clips that have cached answers of earlier runs. If a run was killed between committing rows and `committed`,
        some of them have their rows: `committed` must be told of those when a run begins.
        """
        return self.cache.clip_ids() if self.cache else set()

    def loads(self) -> tuple[str, ...]:
        found = [model for source in self.sources for model in source.loads()]
        return (*found, *(self.match.loads() if self.match else ()))

    def setup(self) -> None:
        if self.cache:
            self.cache.open()
        for source in self.sources:
            source.setup()
        if self.match:
            self.match.setup()

    def halt(self) -> None:
        """Begins no further request; what is under way may still arrive."""
        for source in self.sources:
            source.halt()

    def close(self) -> None:
        for source in self.sources:
            source.close()

    def stream(self, units: Iterable[Unit]) -> Iterator[Unit]:
        """With a server, many clips are asked about at a time, and units leave in the order they are finished."""
        if self.server is None:
            return super().stream(units)
        return stream_concurrently(self, units, self.server.concurrency)

    def score(self, clips: Sequence[Clip]) -> list[Row | ClipError]:
        return self.rows(clips, [self.ask(clip) for clip in clips])

    def ask(self, clip: Clip) -> Answers:
        """All captions of a clip by name, or why one is missing. Raises SettingsError for what meets every clip."""
        deadline = Deadline(self.server.deadline_seconds if self.server else math.inf, self.clock)
        try:
            cached = self.cache.get(clip.clip_id) if self.cache else {}
            return {name: self._caption(clip, name, cached, deadline) for name in self.settings.names}
        except ClipError as error:
            return error
        except SettingsError:
            raise
        except Exception as error:
            return ClipError(one_line(error))

    def rows(self, clips: Sequence[Clip], found: Sequence[Answers]) -> list[Row | ClipError]:
        """The rows of clips, audit included, from the answers that `ask` gave for them."""
        good = [(clip, answers) for clip, answers in zip(clips, found, strict=True) if isinstance(answers, dict)]
        scores: Iterator[list[float]] = iter(())
        if self.match:
            texts = [[answer.text for answer in answers.values()] for _, answers in good]
            scores = iter(self.match.scores([clip for clip, _ in good], texts))
        return [
            answers if isinstance(answers, ClipError) else self._row(answers, next(scores, None)) for answers in found
        ]

    def _caption(self, clip: Clip, name: str, cached: dict[str, Answer], deadline: Deadline) -> Answer:
        """One caption, from the first source that has it. An answer that cost something goes into `cached`."""
        try:
            reasons: list[str] = []
            for source in self.sources:
                if isinstance(source, ManifestCaptions):
                    if answer := source.caption(clip, name, "", deadline):
                        return answer
                    reasons.append(source.missing(name))
                    continue
                prompt = self._prompt(clip, name)
                key = self._key(name, prompt)
                if key in cached:
                    return cached[key]
                if answer := source.caption(clip, name, prompt, deadline):
                    cached[key] = answer
                    if self.cache:
                        self.cache.put(clip.clip_id, cached)
                    return answer
            raise ClipError("; ".join(reasons))
        except ClipError as error:
            if len(self.settings.names) == 1:
                raise
            raise ClipError(f"{error} (caption {name!r})") from error

    def _prompt(self, clip: Clip, name: str) -> str:
        values = prompts.fields(clip)
        template = self.settings.template(name)
        wanted = prompts.check_template(template)
        try:
            filled = prompts.fill(template, values)
        except prompts.FieldError as error:
            # A field that no clip has had so far is a mistake in the recipe; otherwise only this clip lacks it.
            if error.known or error.name in self._known_fields:
                raise ClipError(str(error)) from error
            raise SettingsError(f"prompt {name!r}: {unknown_field(error.name, values)}") from error
        except ValueError as error:
            raise ClipError(f"prompt {name!r}: {error}") from error
        self._known_fields |= wanted
        return filled

    def _key(self, name: str, prompt: str) -> str:
        """A hash of all that an answer depends on besides its clip: 16 hex digits."""
        settings = self.settings.model_dump(
            mode="json", include={"model", "server", "frames", "max_tokens", "temperature", "seed"}
        )
        return _digest(json.dumps([name, prompt, settings], sort_keys=True))

    def _row(self, answers: dict[str, Answer], scores: list[float] | None) -> Row:
        row: Row = {}
        for index, (name, answer) in enumerate(answers.items()):
            column, text, generated = self.settings.column_of(name), answer.text, answer.source != "manifest"
            row |= {
                column: text,
                f"{column}_words": len(audit.words(text)),
                f"{column}_language": language(text),
                f"{column}_repetition": audit.repetition(text),
                f"{column}_truncated": audit.truncated(text, answer.finish),
                f"{column}_refusal": audit.refusal(text),
                f"{column}_boilerplate": audit.boilerplate(text),
                f"{column}_source": answer.source,
                f"{column}_prompt": _digest(self.settings.template(name)) if generated else None,
            }
            if scores is not None:
                row[f"{column}_clip_match"] = scores[index]
        if self.match:
            model = self.match.model
            row |= {"caption_match_model": model.name, "caption_match_revision": model.revision}
        first = next((answer for answer in answers.values() if answer.source != "manifest"), None)
        return row | {
            "caption_seed": self.settings.seed if first else None,
            "model": first.model if first else None,
            "revision": first.revision if first else None,
        }


def unknown_field(name: str, values: dict[str, Any]) -> str:
    """The error for a prompt field that is no column: one line with the nearest name."""
    import difflib

    near = difflib.get_close_matches(name, values, n=1)
    there = ", ".join(sorted(key for key in values if key.isidentifier())[:30])
    return f"no clip has a column {name!r}; " + (f"did you mean {{{near[0]}}}?" if near else f"there is {there}")


def _make_source(kind: str, settings: CaptionSettings, clock: Clock) -> CaptionSource:
    if kind == "manifest":
        return ManifestCaptions(settings.manifest)
    if kind == "model":
        from stages.captions.vision_language import ModelCaptions

        return ModelCaptions(settings)
    from stages.captions.server import ServerCaptions

    return ServerCaptions(settings, clock)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
