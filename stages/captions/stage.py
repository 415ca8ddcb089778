"""The stage `caption`: asks the sources for each caption of a clip, and writes down what can be said of them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, ClassVar

from stages.base import ClipError, ClipStage, Context, Needs, SettingsError, one_line
from stages.captions import audit, prompts
from stages.captions.answer_cache import Spool
from stages.captions.answers import Answer, Deadline, Source
from stages.captions.async_batch import stream_concurrently
from stages.captions.language import language
from stages.captions.manifest import Manifest
from stages.captions.match import Match
from stages.captions.settings import CaptionSettings
from stages.frames import FrameRequest
from stages.pretrained.devices import on_gpu
from stages.unit import Clip, Row, Unit

VERSION = 1  # changes whenever the same answers would be audited otherwise


class Caption(ClipStage):
    """Captions of clips and their audit. A clip has all of its captions, or is failed with the reason."""

    name: ClassVar[str] = "caption"
    default_table: ClassVar[str] = "captions"

    def __init__(self, settings: CaptionSettings):
        super().__init__(settings.table)
        self.settings = settings
        self.batch_clips = settings.batch_clips
        self.sources: list[Source] = [_make_source(kind, settings) for kind in settings.source]
        self.match = Match(settings.match, settings.device) if settings.match else None
        self.spool: Spool | None = None
        self.served = settings.server if "server" in settings.source else None
        networks = "model" in settings.source or self.match is not None
        gpus = 1.0 if networks and on_gpu(settings.device) else 0.0
        self._request = self._frames_wanted()
        # One worker asks a server: concurrency and rate limit are those of the run, not of each worker.
        self.needs = Needs(1.0 if networks else 0.1, gpus, workers=1 if self.served else None)
        self._met: set[str] = set()  # prompt fields that some clip had

    def _frames_wanted(self) -> FrameRequest | None:
        frames = self.settings.frames
        request = FrameRequest(frames.positions, frames.long_side)
        if self.settings.source == ("manifest",):
            request = self.match.own_request(frames.positions) if self.match else None
        if self.match:
            self.match.request = request
        return request

    def wants(self) -> FrameRequest | None:
        return self._request

    def signals(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in self.settings.names:
            column = self.settings.column_of(name)
            found |= {column: "string", f"{column}_words": "int32", f"{column}_language": "string"}
            found |= {f"{column}_repetition": "double", f"{column}_truncated": "bool", f"{column}_refusal": "string"}
            found |= {f"{column}_boilerplate": "string", f"{column}_source": "string", f"{column}_prompt": "string"}
            found |= {f"{column}_clip_match": "double"} if self.match else {}
        found |= {"caption_match_model": "string", "caption_match_revision": "string"} if self.match else {}
        return found | {"caption_seed": "int64", "model": "string", "revision": "string"}

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
        """Answers are kept below the catalog until their rows are committed."""
        if any(source.costly for source in self.sources):
            self.spool = Spool(context.catalog_uri, self.table)
            self.keeps_answers = True
        if context.sources and len(self.sources) == 1 and isinstance(self.sources[0], Manifest):
            self.sources[0].check_sources(context.sources, self.settings.names)

    def committed(self, clip_ids: Collection[str]) -> None:
        """To be told of clips done, not of failed ones: the captions they do have are for the next try."""
        if self.spool:
            self.spool.clear(set(clip_ids))

    def left_over(self) -> set[str]:
        """Clips that have answers kept, of earlier runs. A run that was killed between committing rows and
        `committed` leaves some whose rows are there: they are to be told to `committed` when a run begins.
        """
        return self.spool.left_over() if self.spool else set()

    def setup(self) -> None:
        for source in self.sources:
            source.setup()
        if self.match:
            self.match.setup()
        if self.spool:
            self.spool.open()

    def halt(self) -> None:
        """Begins no further request; what is under way may still arrive."""
        for source in self.sources:
            source.halt()

    def close(self) -> None:
        for source in self.sources:
            source.close()

    def stream(self, units: Iterable[Unit]) -> Iterator[Unit]:
        """With a server, clips are asked about side by side, and units leave as they are finished."""
        if self.served is None:
            return super().stream(units)
        return stream_concurrently(self, units, self.served.concurrency)

    def score(self, clips: Sequence[Clip]) -> list[Row | ClipError]:
        return self.rows(clips, [self.ask(clip) for clip in clips])

    def ask(self, clip: Clip) -> dict[str, Answer] | ClipError:
        """All captions of a clip by name, or why one is missing. Raises SettingsError for what meets every clip."""
        deadline = Deadline.within(self.served.deadline_seconds if self.served else math.inf)
        try:
            kept = self.spool.get(clip.clip_id) if self.spool else {}
            found: dict[str, Answer] = {}
            for name in self.settings.names:
                try:
                    found[name] = self._caption(clip, name, kept, deadline)
                except ClipError as error:
                    raise (
                        error if len(self.settings.names) == 1 else ClipError(f"{error} (caption {name!r})")
                    ) from error
            return found
        except ClipError as error:
            return error
        except SettingsError:
            raise
        except Exception as error:
            return ClipError(one_line(error))

    def rows(self, clips: Sequence[Clip], found: Sequence[dict[str, Answer] | ClipError]) -> list[Row | ClipError]:
        """The audited rows of what `ask` gave."""
        good = [(clip, answers) for clip, answers in zip(clips, found, strict=True) if isinstance(answers, dict)]
        scores: Iterator[list[float]] = iter(())
        if self.match:
            texts = [[answer.text for answer in answers.values()] for _, answers in good]
            scores = iter(self.match.scores([clip for clip, _ in good], texts))
        return [
            answers if isinstance(answers, ClipError) else self._row(answers, next(scores, None)) for answers in found
        ]

    def _caption(self, clip: Clip, name: str, kept: dict[str, Answer], deadline: Deadline) -> Answer:
        why: list[str] = []
        for source in self.sources:
            if isinstance(source, Manifest):
                answer = source.caption(clip, name, "", deadline)
                if answer is not None:
                    return answer
                why.append(source.missing(name))
                continue
            prompt = self._prompt(clip, name)
            key = self._key(name, prompt)
            if key in kept:
                return kept[key]
            answer = source.caption(clip, name, prompt, deadline)
            if answer is not None:
                kept[key] = answer
                if self.spool and source.costly:
                    self.spool.put(clip.clip_id, kept)
                return answer
        raise ClipError("; ".join(why))

    def _prompt(self, clip: Clip, name: str) -> str:
        values = prompts.fields(clip)
        template = self.settings.template(name)
        wanted = prompts.check_template(template)
        try:
            filled = prompts.fill(template, values)
        except prompts.FieldError as error:
            # Of a field that no clip has had so far, the recipe is wrong; else this clip alone is poorer.
            if error.known or error.name in self._met:
                raise ClipError(str(error)) from error
            raise SettingsError(f"prompt {name!r}: {unknown_field(error.name, values)}") from error
        except ValueError as error:
            raise ClipError(f"prompt {name!r}: {error}") from error
        self._met |= wanted
        return filled

    def _key(self, name: str, prompt: str) -> str:
        """What an answer was asked under: 16 hex digits."""
        said = self.settings.model_dump(
            mode="json", include={"model", "server", "frames", "max_tokens", "temperature", "seed"}
        )
        return _digest(json.dumps([name, prompt, said], sort_keys=True))

    def _row(self, answers: dict[str, Answer], scores: list[float] | None) -> Row:
        row: Row = {}
        for index, (name, answer) in enumerate(answers.items()):
            column, text, asked = self.settings.column_of(name), answer.text, answer.source != "manifest"
            row |= {
                column: text,
                f"{column}_words": len(audit.words(text)),
                f"{column}_language": language(text),
                f"{column}_repetition": audit.repetition(text),
                f"{column}_truncated": audit.truncated(text, answer.finish),
                f"{column}_refusal": audit.refusal(text),
                f"{column}_boilerplate": audit.boilerplate(text),
                f"{column}_source": answer.source,
                f"{column}_prompt": _digest(self.settings.template(name)) if asked else None,
            }
            if scores is not None:
                row[f"{column}_clip_match"] = scores[index]
        if self.match:
            row |= {"caption_match_model": self.match.name, "caption_match_revision": self.match.revision}
        asked = [answer for answer in answers.values() if answer.source != "manifest"]
        return row | {
            "caption_seed": self.settings.seed if asked else None,
            "model": asked[0].model if asked else None,
            "revision": asked[0].revision if asked else None,
        }


def unknown_field(name: str, values: dict[str, Any]) -> str:
    """One line that names the nearest field there is."""
    import difflib

    near = difflib.get_close_matches(name, values, n=1)
    there = ", ".join(sorted(key for key in values if key.isidentifier())[:30])
    return f"no clip has a column {name!r}; " + (f"did you mean {{{near[0]}}}?" if near else f"there is {there}")


def _make_source(kind: str, settings: CaptionSettings) -> Source:
    if kind == "manifest":
        return Manifest(settings.manifest)
    if kind == "model":
        from stages.captions.vision_language import VisionLanguage

        return VisionLanguage(settings)
    from stages.captions.server import Server

    return Server(settings)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
