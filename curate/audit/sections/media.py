"""What the clips are as video: duration, resolution, aspect, frame rate, codec, bit depth, sound."""

from __future__ import annotations

from collections.abc import Iterator

from curate.audit.figure import Figure
from curate.audit.groups import Group
from curate.audit.histogram import histogram_sql, value_range
from curate.audit.ranked import ranked_sql
from curate.audit.subject import Subject

OF_CLIPS = {
    "resolution": ("Resolution, as displayed", "width || 'x' || height"),
    "short_side": (
        "Shorter side of the picture",
        "CASE WHEN least(width, height) < 240 THEN 'under 240' WHEN least(width, height) < 480 THEN '240 to 479' "
        "WHEN least(width, height) < 720 THEN '480 to 719' WHEN least(width, height) < 1080 THEN '720 to 1079' "
        "WHEN least(width, height) < 2160 THEN '1080 to 2159' WHEN least(width, height) >= 2160 THEN 'from 2160' END",
    ),
    "aspect": ("Aspect, width : height", "CAST(round(width / nullif(height, 0), 2) AS VARCHAR)"),
    "fps": ("Frames per second", "CAST(round(fps, 2) AS VARCHAR)"),
    "media": ("Videos and images", "media"),
}
OF_SOURCES = {
    "codec": "Codec of the sources",
    "bit_depth": "Bit depth of the sources",
    "pixel_format": "Pixel format of the sources",
    "color_transfer": "Transfer of the sources: smpte2084 (PQ) and arib-std-b67 (HLG) are HDR",
    "field_order": "Field order of the sources: all but progressive are interlaced",
    "container": "Container of the sources",
    "has_audio": "Whether the sources have sound",
    "audio_channels": "Channels of the sound",
}


def figures(subject: Subject) -> Iterator[Figure]:
    title = "Duration of the clips, in seconds"
    span = value_range(subject, "seconds")
    if span is None:
        yield subject.absent("media.duration", title, "a clip")
    else:
        yield subject.figure("media.duration", title, histogram_sql("seconds", span))
    for name, (title, column) in OF_CLIPS.items():
        yield subject.figure(f"media.{name}", title, ranked_sql(Group(name, title, column, of_sources=False)))
    for name, title in OF_SOURCES.items():
        if name in subject.source_columns:
            yield subject.figure(f"media.{name}", title, ranked_sql(Group(name, title, name, of_sources=True)))
        else:
            yield subject.absent(f"media.{name}", title, f"the column {name}")
