"""Files as people have them: side data without a name, several streams, encryption, films in picture formats, rates."""

import struct
from fractions import Fraction
from io import BytesIO

import av
import cv2
import numpy as np
import pytest

from stages.cuts.settings import CutSettings
from stages.decode.fetch import open_seeker
from stages.decode.readers import open_reader
from stages.decode.seek_reader import SeekReader
from stages.decode.settings import ProbeSettings
from stages.decode.sources import open_source
from stages.frames import SourceError
from stages.scan.messages import ScannedClip, ScannedSource, ScanSettings
from stages.scan.scan import scan
from tests.hostile import write_video
from tests.numbered import film, number_of, numbered

FPS = 24


def read(path):
    """(the reader, [(PTS, displayed picture)])."""
    with open_source(str(path)) as file:
        reader = open_reader(file)
        return reader, [(frame.pts, frame.picture(192)) for frame in reader]


def scanned(path, **probe):
    """(columns of `sources`, columns of each of its clips)."""
    settings = ScanSettings(ProbeSettings(**probe), CutSettings(detector="none", gradual=False), ())
    source, clips = {}, []
    for answer in scan(open_source(str(path)), settings, lambda n: None):
        if isinstance(answer, ScannedSource):
            source |= answer.columns
        if isinstance(answer, ScannedClip):
            clips.append(answer.columns)
    return source, clips


def timelapse(path, orientation, container):
    """JPEG pictures with EXIF, as cameras write timelapses: PyAV has no name for side data of that kind."""
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)
    segment = b"Exif\0\0" + tiff
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream("mjpeg", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 192, 112, "yuvj420p"
        for number in range(24):
            jpeg = cv2.imencode(".jpg", numbered(number)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
            packet = av.Packet(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:])
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, FPS), True
            packet.pts = packet.dts = number
            out.mux(packet)
    return path


# EXIF orientation -> degrees clockwise that the picture is turned for display, whether it is mirrored before
ORIENTATIONS = {1: (0, False), 2: (0, True), 3: (180, False), 4: (180, True), 5: (270, True), 6: (90, False),
                7: (90, True), 8: (270, False)}  # fmt: skip
TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("container", ["matroska", "mov"])
def test_a_timelapse_is_decoded_and_shown_as_its_exif_says(tmp_path, orientation, container):
    reader, frames = read(timelapse(tmp_path / "timelapse", orientation, container))
    degrees, mirrored = ORIENTATIONS[orientation]
    assert (reader.info.rotation, len(frames)) == (degrees, 24)
    assert (reader.info.width, reader.info.height) == ((112, 192) if degrees in (90, 270) else (192, 112))
    for number, (_, picture) in enumerate(frames):
        if degrees:
            picture = cv2.rotate(picture, TURNS[360 - degrees])
        assert number_of(picture[:, ::-1] if mirrored else picture) == number


def streams(path, *sizes, container="mp4"):
    """A film of several video streams: (width, height, disposition) of each; frame n of stream k shows 100 k + n."""
    with av.open(str(path), "w", format=container) as out:
        made = []
        for width, height, disposition in sizes:
            stream = out.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt, stream.disposition = width, height, "yuv420p", disposition
            made.append(stream)
        for number in range(24):
            for k, stream in enumerate(made):
                picture = numbered(100 * k + number, stream.width, stream.height)
                frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p")
                frame.pts = number
                out.mux(stream.encode(frame))
        for stream in made:
            out.mux(stream.encode())
    return path


SMALL, LARGE, LARGEST = (320, 180), (480, 270), (640, 360)
NONE, DEFAULT, PICTURE = 0, 1, 1 << 10


@pytest.mark.parametrize(
    ("sizes", "container", "best"),
    [
        ([(*SMALL, NONE), (*LARGE, NONE)], "mp4", 1),  # the writer marks the first as default
        ([(*LARGE, NONE), (*SMALL, NONE)], "mp4", 0),
        ([(*SMALL, NONE), (*LARGE, NONE), (*LARGE, NONE)], "mpegts", 1),
        ([(*SMALL, DEFAULT), (*LARGE, DEFAULT), (*LARGEST, NONE)], "matroska", 1),
        ([(*LARGEST, NONE), (*SMALL, DEFAULT)], "matroska", 1),
    ],
)  # fmt: skip
def test_the_best_video_stream_is_read_by_the_pass_and_by_seeking(tmp_path, sizes, container, best):
    path = streams(tmp_path / "film", *sizes, container=container)
    source, _ = scanned(path)
    assert (source["video_stream"], source["video_streams"]) == (best, len(sizes))
    assert (source["width"], source["height"]) == sizes[best][:2]
    _, frames = read(path)
    assert [number_of(picture) for _, picture in frames] == [100 * best + n for n in range(24)]
    with open_source(str(path)) as file:
        seeking = SeekReader(file)
        assert number_of(seeking.frame_at(frames[13][0], 0, 10**9).picture(192)) == 100 * best + 13


def test_a_cover_picture_is_never_the_film(tmp_path):
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as out:
        video, cover = out.add_stream("libx264", rate=FPS), out.add_stream("mjpeg")
        video.width, video.height, video.pix_fmt = 192, 112, "yuv420p"
        cover.width, cover.height, cover.pix_fmt, cover.disposition = 1024, 1024, "yuvj420p", PICTURE
        packet = av.Packet(cv2.imencode(".jpg", np.zeros((1024, 1024, 3), np.uint8))[1].tobytes())
        packet.stream, packet.pts, packet.dts, packet.time_base = cover, 0, 0, Fraction(1, FPS)
        out.mux(packet)
        for picture in film(24):
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p")))
        out.mux(video.encode())
    source, _ = scanned(path)
    assert (source["width"], source["video_streams"], source["frames"]) == (192, 1, 24)


@pytest.mark.parametrize("movflags", [{}, {"movflags": "frag_keyframe+empty_moov"}])
def test_an_encrypted_film_fails_with_the_reason(tmp_path, movflags):
    path, key = tmp_path / "film.mp4", {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "0123456789abcdef" * 2}
    key |= {"encryption_kid": "fedcba9876543210" * 2} | movflags
    with av.open(str(path), "w", options=key) as out:
        stream = out.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 192, 112, "yuv420p"
        for picture in film(24):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p")))
        out.mux(stream.encode())
    for how in ("fail", "keep"):
        with pytest.raises(SourceError, match=r"^encrypted: the video is under copy protection"):
            scanned(path, truncated=how)
    with open_source(str(path)) as file, pytest.raises(SourceError, match=r"^encrypted"):
        SeekReader(file)


def test_a_scrambled_transport_stream_fails_with_the_reason(tmp_path):
    data = bytearray(write_video(tmp_path / "film.ts", film(24), container="mpegts").read_bytes())
    rng = np.random.default_rng(0)
    for at in range(0, len(data), 188):
        if (data[at + 1] & 0x1F) << 8 | data[at + 2] == 0x100:  # the video's packets; tables stay readable
            data[at + 3] |= 0x80
            data[at + 4 : at + 188] = rng.integers(0, 256, 184, np.uint8).tobytes()
    (tmp_path / "film.ts").write_bytes(data)
    with pytest.raises(SourceError, match=r"^encrypted: the video is under copy protection"):
        scanned(tmp_path / "film.ts")


def animation(kind, pictures, milliseconds):
    """An animation of RGB pictures (h, w, 3)."""
    if kind == "gif":
        out = BytesIO()
        with av.open(out, "w", format="gif") as container:
            stream = container.add_stream("gif", rate=1000 // milliseconds)
            stream.height, stream.width = pictures[0].shape[:2]
            stream.pix_fmt = "rgb8"
            for picture in pictures:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="rgb8")))
            container.mux(stream.encode())
        return out.getvalue()
    frames = cv2.Animation()
    frames.frames = [np.ascontiguousarray(picture[..., ::-1]) for picture in pictures]
    frames.durations = [milliseconds] * len(pictures)
    made, data = cv2.imencodeanimation(f".{kind}", frames, [cv2.IMWRITE_WEBP_QUALITY, 101])  # without loss
    assert made
    return data.tobytes()


@pytest.mark.parametrize("kind", ["webp", "png", "gif"])
def test_an_animated_picture_is_a_film(tmp_path, kind):
    path = tmp_path / f"moving.{kind}"
    path.write_bytes(animation(kind, list(film(30)), 100))
    source, (clip,) = scanned(path)
    assert (source["media"], source["frames"], source["duration_s"]) == ("video", 30, 3.0)
    assert (source["width"], source["height"], source["fps"]) == (192, 112, 10.0)
    assert source["codec"] == {"webp": "webp", "png": "apng", "gif": "gif"}[kind]
    assert (clip["start_s"], clip["end_s"], clip["frames"]) == (0.0, 3.0, 30)
    reader, frames = read(path)
    assert [number_of(picture) for _, picture in frames] == list(range(30))
    assert sum(reader.packets_bytes(0, 10**9) for _ in range(1)) > 0.8 * path.stat().st_size
    with open_source(str(path)) as file:
        seeker = open_seeker(file, None, 1, lambda n: None)
        for number in (20, 3, 29, 0):
            pts = frames[number][0]
            found = seeker.frame_at(pts, 0, 10**9)
            assert found.pts == pts and np.array_equal(found.picture(192), frames[number][1])
        end = reader.last_end_pts
        assert (seeker.frame_at(end - 1, 0, end).pts, seeker.ends_at(end)) == (frames[29][0], None)


@pytest.mark.parametrize("kind", ["webp", "png"])
def test_a_single_picture_stays_a_picture(tmp_path, kind):
    still = cv2.imencode(f".{kind}", numbered(7))[1].tobytes()
    for data in (still, animation(kind, [numbered(7)], 100)):
        path = tmp_path / f"still.{kind}"
        path.write_bytes(data)
        source, (clip,) = scanned(path)
        assert (source["media"], source["frames"], clip["frames"], clip["fps"]) == ("image", 1, 1, None)


@pytest.mark.parametrize("kind", ["webp", "png"])
def test_an_animation_that_is_cut_off_is_truncated_and_keeps_its_whole_frames(tmp_path, kind):
    data = animation(kind, list(film(30)), 100)
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(SourceError, match=r"^truncated"):
        scanned(path)
    source, _ = scanned(path, truncated="keep")
    assert 15 <= source["frames"] <= 21
    assert [number_of(picture) for _, picture in read(path)[1]][:15] == list(range(15))


def test_every_pixel_of_a_blended_webp_is_that_of_its_canvas(tmp_path):
    pictures = list(film(12))
    for picture in pictures:  # parts that stay make encoders store rectangles to be blended
        picture[60:, 100:] = 90
    path = tmp_path / "moving.webp"
    path.write_bytes(animation("webp", pictures, 40))
    _, frames = read(path)
    for drawn, (_, picture) in zip(pictures, frames, strict=True):
        assert np.array_equal(drawn[..., ::-1], picture)


@pytest.mark.parametrize(
    ("encoder", "container", "name"),
    [("libsvtav1", "mp4", "av1"), ("libvpx-vp9", "webm", "vp9"), ("libvpx", "webm", "vp8"), ("libx264", "mp4", "h264"),
     ("libx265", "mp4", "hevc"), ("flv", "flv", "flv1"), ("mpeg4", "avi", "mpeg4")],
)  # fmt: skip
def test_a_codec_has_the_name_of_its_format_and_not_of_a_decoder(tmp_path, encoder, container, name):
    quiet = {"x265-params": "log-level=none", "svtav1-params": "lp=1"}
    path = write_video(tmp_path / "film", film(12), codec=encoder, container=container, options=quiet | {"preset": "8"}
                       if encoder == "libsvtav1" else quiet)  # fmt: skip
    source, (clip,) = scanned(path)
    assert (source["codec"], source["frames"], clip["damaged_frames"]) == (name, 12, 0)


@pytest.mark.parametrize(
    ("container", "codec"), [("webm", "libvpx-vp9"), ("flv", "flv"), ("asf", "wmv2"), ("matroska", "libx264")]
)
def test_the_rate_is_the_average_and_not_that_of_the_clock(tmp_path, container, codec):
    """Written with a rate of one frame a millisecond, as screen recorders do: 30 frames a second are in it."""
    times = [round(number * 1000 / 30) for number in range(60)]
    path = write_video(tmp_path / "film", film(60), fps=1000, codec=codec, container=container, pts=times,
                       time_base=Fraction(1, 1000))  # fmt: skip
    source, _ = scanned(path)
    assert source["frames"] == 60 and source["fps"] == pytest.approx(30, rel=0.02)
