"""Draws the demo's films, and describes what is in each.

About thirty small files as a real folder has them: several codecs, sizes and frame rates, hard cuts,
cross-fades, dips to black, titles, bars, films of one shot with their caption in a text file beside them,
duplicates of five kinds, pictures, and files that are broken.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from curate.demo import duplicates, files
from curate.demo.scenes import COLOURS, MOVEMENTS, SHAPES, Painter, Scene
from models.files import write_whole


@dataclass(frozen=True)
class Shot:
    """A scene for some seconds. `joint` is the transition at its start: 'cut', 'cross-fade' or 'dip to black'."""

    scene: Scene
    seconds: float
    joint: str = "cut"
    joint_seconds: float = 0.0


@dataclass(frozen=True)
class Script:
    """How one film is made; width and height are as displayed."""

    name: str
    shots: tuple[Shot, ...]
    width: int = 320
    height: int = 192
    fps: int = 24
    codec: str = "libx264"
    bars: int = 0  # black rows at the top and at the bottom
    rotation: int = 0  # stored turned by 90 degrees, with the display matrix that turns it back
    aspect: tuple[int, int] = (1, 1)  # sample aspect ratio; width and height are then as stored
    ragged: bool = False  # variable frame rate: frames are left out
    captioned: bool = False  # NAME.txt beside the film holds its caption


@dataclass
class FilmTruth:
    """What is in one file. Times are seconds; a hard cut is a joint of no length."""

    name: str
    media: str = "video"  # 'video', 'image' or 'broken'
    # Without their transitions: {start_s, end_s, caption, shape, colour, movement, ground, title}
    shots: list[dict] = field(default_factory=list)
    joints: list[dict] = field(default_factory=list)  # {kind, start_s, end_s}
    width: int = 0  # as displayed
    height: int = 0
    fps: float = 0.0
    duplicate_of: str = ""  # the film that has the same shots in the same order
    change: str = ""  # of a duplicate: 'copy', 're-encoded', 'resized', 'trimmed' or 'brighter'
    caption_file: str = ""
    flaws: list[str] = field(default_factory=list)  # reasons for a curator to drop it: static, dark, short, bars

    @property
    def identical(self) -> bool:
        """Whether it is a duplicate byte by byte."""
        return self.change == "copy"


ONE_SHOTS: dict[str, dict[str, Any]] = {  # name -> attributes of the scene that are not drawn at random
    "one_shot_1.mp4": {},
    "one_shot_2.mp4": {},
    "one_shot_3.mp4": {},
    "one_shot_4.mp4": {"pan": 0.04},
    "one_shot_5.mp4": {"title": "PART TWO"},
    "one_shot_6.mp4": {"title": "INTERMISSION"},
}


def draw_films(
    folder: Path | str,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    there: Sequence[FilmTruth] = (),
) -> list[FilmTruth]:
    """Draws every film into `folder` and returns the truth about them; the same seed gives the same films.

    Takes about five seconds. Films that are `there` are not drawn again. `progress(done, all)` is called after
    each file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    known = {film.name: film for film in there}
    truth: dict[str, FilmTruth] = {}
    tasks: list[tuple[str, Callable[[Path, Any], FilmTruth], Any]] = [
        (script.name, _draw_script, script) for script in film_scripts(rng)
    ]
    tasks += [(name, _draw_picture, (name, _scenes(rng, 1)[0])) for name in ("poster.jpg", "poster.png", "poster.webp")]
    tasks += [(one.name, partial(_draw_duplicate, truth), one) for one in duplicates.DUPLICATES]
    tasks += [(name, _draw_broken, name) for name in ("empty.mp4", "letter.mp4", "cut_off.mp4", "sound_only.mp4")]
    for done, (name, draw, what) in enumerate(tasks, 1):
        truth[name] = known.get(name) or draw(folder, what)
        if progress:
            progress(done, len(tasks))
    return list(truth.values())


def write_truth(path: Path, truth: list[FilmTruth]) -> None:
    """One JSON line per film."""
    write_whole(path, "".join(json.dumps(asdict(film)) + "\n" for film in truth))


def read_truth(path: Path) -> list[FilmTruth]:
    return [FilmTruth(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def shot_at(film: FilmTruth, start_s: float, end_s: float) -> int | None:
    """The number of the shot that holds the middle of a clip, None in a transition; an image is one shot."""
    middle = (start_s + end_s) / 2
    if film.media == "image":
        return 0
    return next((i for i, shot in enumerate(film.shots) if shot["start_s"] <= middle < shot["end_s"]), None)


def film_scripts(rng: np.random.Generator) -> list[Script]:
    """The films that are drawn frame by frame, in this order."""

    def shots(*seconds: float, joint: str = "cut", joint_seconds: float = 0.0, **look: Any) -> tuple[Shot, ...]:
        scenes = _scenes(rng, len(seconds), **look)
        return tuple(Shot(s, t, joint, joint_seconds) for s, t in zip(scenes, seconds, strict=True))

    titles = list(shots(2.5, 3.0, 3.5))
    for place, text in ((0, "A SHORT FILM"), (2, "THE END")):
        titles[place] = replace(titles[place], scene=replace(titles[place].scene, title=text))
    return [
        Script("cuts.mp4", shots(2.5, 3.0, 2.25, 3.5, 2.75)),
        Script("cuts_mpeg4.avi", shots(3.0, 2.5, 4.0), 320, 240, 25, "mpeg4"),
        Script("cuts_vp9.webm", shots(3.0, 2.5, 3.0), 256, 144, 30, "libvpx-vp9"),
        Script("cross_fades.mp4", shots(3.0, 3.5, 3.0, 3.5, joint="cross-fade", joint_seconds=0.5)),
        Script("dips.mp4", shots(3.0, 3.0, 3.5, joint="dip to black", joint_seconds=0.6), fps=25),
        Script("titles.mp4", tuple(titles)),
        Script("bars.mp4", shots(3.0, 3.5), 320, 240, bars=36),
        Script("wide.mp4", shots(3.0, 3.5, pan=0.04), 640, 360),
        Script("changing_rate.mkv", shots(3.0, 3.0, 3.0), fps=30, ragged=True),
        Script("phone.mp4", shots(3.0, 3.0), 192, 320, rotation=90),
        Script("narrow_pixels.mp4", shots(3.5), 240, 192, 25, "mpeg4", aspect=(4, 3)),
        Script("still_life.mp4", shots(4.0, movement="standing still", grain=False)),
        Script("lens_cap.mp4", shots(4.0, light=0.02, grain=False)),
        Script("blink.mp4", shots(1.0)),
        *(Script(name, shots(2.5, **look), 256, 144, captioned=True) for name, look in ONE_SHOTS.items()),
    ]


def _scenes(rng: np.random.Generator, count: int, **look: Any) -> list[Scene]:
    """Random scenes with the attributes in `look`. No two neighbours share a colour or a ground."""
    scenes: list[Scene] = []
    shape_colours = [c for c in COLOURS if c not in ("grey", "black")]
    while len(scenes) < count:
        seen = {scenes[-1].colour, scenes[-1].ground} if scenes else set()
        ground = str(rng.choice([c for c in COLOURS if c not in seen and c != "black"]))
        colour = str(rng.choice([c for c in shape_colours if c not in seen and c != ground]))
        shape, movement = str(rng.choice(SHAPES)), str(rng.choice(MOVEMENTS))
        if (shape, movement) == ("circle", "spinning"):
            movement = "growing"  # a circle that spins looks like one that stands still
        seed = int(rng.integers(2**31))
        scenes.append(replace(Scene(shape, colour, movement, ground, seed), **look))
    return scenes


def timeline(shots: tuple[Shot, ...]) -> list[tuple[float, float]]:
    """(start, end) of each shot in seconds; cross-faded shots overlap."""
    spans: list[tuple[float, float]] = []
    for shot in shots:
        start = spans[-1][1] if spans else 0.0
        if spans and shot.joint == "cross-fade":
            start -= shot.joint_seconds
        spans.append((start, start + shot.seconds))
    return spans


def frame_times(script: Script) -> list[float]:
    """The time of every frame in seconds; a ragged film leaves out three of seven frames."""
    count = round(timeline(script.shots)[-1][1] * script.fps)
    return [i / script.fps for i in range(count) if not (script.ragged and i % 7 in (2, 5, 6))]


def film_frames(script: Script) -> Iterator[tuple[float, np.ndarray]]:
    """(seconds, (height, width, 3) uint8 RGB) of every frame, as displayed."""
    height = script.height - 2 * script.bars
    painters = [Painter(shot.scene, script.width, height) for shot in script.shots]
    spans = timeline(script.shots)
    for index, now in enumerate(frame_times(script)):
        picture = np.zeros((height, script.width, 3), np.float32)
        for i, (start, end) in enumerate(spans):
            share = _visibility(script.shots, spans, i, now)
            if share > 0:
                picture += share * painters[i].frame((now - start) / (end - start), now - start, index)
        frame = np.zeros((script.height, script.width, 3), np.uint8)
        frame[script.bars : script.height - script.bars] = np.clip(picture, 0, 255)
        yield now, frame


def _visibility(shots: tuple[Shot, ...], spans: list[tuple[float, float]], i: int, now: float) -> float:
    """The weight of shot `i` in the picture at `now`, 0 to 1."""
    start, end = spans[i]
    if not start - 1e-9 <= now < end - 1e-9:
        return 0.0
    share = 1.0
    if i > 0 and (length := _ramp(shots[i])):
        share = min(share, (now - start) / length)
    if i + 1 < len(shots) and (length := _ramp(shots[i + 1])):
        share = min(share, (end - now) / length)
    return share


def _ramp(shot: Shot) -> float:
    """Seconds over which a shot fades in and the one before it fades out."""
    return {"cut": 0.0, "cross-fade": shot.joint_seconds, "dip to black": shot.joint_seconds / 2}[shot.joint]


def script_truth(script: Script) -> FilmTruth:
    """The truth about a film of this script, with times rounded to its frames."""
    spans, times = timeline(script.shots), frame_times(script)
    truth = FilmTruth(script.name, width=script.width, height=script.height, fps=float(script.fps))
    truth.width = script.width * script.aspect[0] // script.aspect[1]
    edges = [0.0]
    for shot, (start, _), (_, end_before) in zip(script.shots[1:], spans[1:], spans, strict=False):
        reach = _ramp(shot) if shot.joint == "dip to black" else 0.0
        first = next(t for t in times if t >= start - reach - 1e-6)
        last = next(t for t in times if t >= end_before + reach - 1e-6)
        truth.joints.append({"kind": shot.joint, "start_s": first, "end_s": last})
        edges += [first, last]
    edges.append(spans[-1][1])
    for shot, start, end in zip(script.shots, edges[::2], edges[1::2], strict=True):
        truth.shots.append(_shot_truth(shot.scene, start, end))
    looks = [shot.scene for shot in script.shots]
    flaws = {
        "static": not any(s.grain or s.movement != "standing still" for s in looks),
        "dark": all(s.light < 0.1 for s in looks),
        "short": spans[-1][1] < 2,
        "bars": script.bars > 0,
    }
    truth.flaws = [flaw for flaw, has in flaws.items() if has]
    return truth


def _shot_truth(scene: Scene, start: float, end: float) -> dict:
    shown = {name: getattr(scene, name) for name in ("shape", "colour", "movement", "ground", "title")}
    return {"start_s": start, "end_s": end, "caption": scene.caption, **shown}


def _draw_script(folder: Path, script: Script) -> FilmTruth:
    path = folder / script.name
    files.write_video(path, film_frames(script), script.fps, script.codec, script.rotation, script.aspect)
    truth = script_truth(script)
    if script.captioned:
        truth.caption_file = path.with_suffix(".txt").name
        (folder / truth.caption_file).write_text(truth.shots[0]["caption"] + "\n", encoding="utf-8")
    return truth


def _draw_picture(folder: Path, what: tuple[str, Scene]) -> FilmTruth:
    name, scene = what
    files.write_image(folder / name, np.clip(Painter(scene, 320, 192).frame(0.5, 0.0, 0), 0, 255).astype(np.uint8))
    return FilmTruth(name, "image", [_shot_truth(scene, 0.0, 0.0)], width=320, height=192)


def _draw_duplicate(drawn: dict[str, FilmTruth], folder: Path, duplicate: duplicates.Duplicate) -> FilmTruth:
    original = drawn[duplicate.of]
    duplicates.write_duplicate(folder, duplicate)
    width, height = duplicate.size or (original.width, original.height)
    length = original.shots[-1]["end_s"] - 2 * duplicate.trim_s

    def moved(span: dict) -> dict:
        start, end = (min(max(span[edge] - duplicate.trim_s, 0.0), length) for edge in ("start_s", "end_s"))
        return span | {"start_s": start, "end_s": end}

    shots, joints = list(map(moved, original.shots)), list(map(moved, original.joints))
    return replace(
        original,
        name=duplicate.name,
        duplicate_of=duplicate.of,
        change=duplicate.change,
        caption_file="",
        width=width,
        height=height,
        shots=shots,
        joints=joints,
    )


def _draw_broken(folder: Path, name: str) -> FilmTruth:
    """Writes a file that no decoder can read as a film."""
    path = folder / name
    if name == "sound_only.mp4":
        files.write_sound(path)
    elif name == "cut_off.mp4":  # an MP4 has its index at its end, so half of one has none
        whole = (folder / "cuts.mp4").read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    else:
        path.write_bytes(b"" if name == "empty.mp4" else b"Dear reader, this is a letter and no film.\n" * 40)
    return FilmTruth(name, "broken")
