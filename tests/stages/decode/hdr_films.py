"""Pictures in PQ and HLG, drawn from linear light; and what SDR shows of their planes, written by the standards.

Nothing here is shared with `stages.decode.tone_map`: all is float64, and the curve is in the form of FFmpeg's filter.
"""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from tests.hostile import write_video

PQ, HLG, BT709, BT2020, LIMITED, FULL = 16, 18, 1, 9, 1, 2
TO_709 = np.array(  # BT.2087
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]]
)
TO_2020 = np.linalg.inv(TO_709)
KR, KB = 0.2627, 0.0593


def pq(light):
    """Of light as a share of 10,000 nits (SMPTE ST 2084)."""
    p = np.power(light, 0.1593017578125)
    return np.power((0.8359375 + 18.8515625 * p) / (1 + 18.6875 * p), 78.84375)


def pq_light(value):
    p = np.power(value, 1 / 78.84375)
    return np.power(np.maximum(p - 0.8359375, 0) / (18.8515625 - 18.6875 * p), 1 / 0.1593017578125)


def hlg(scene):
    """Of scene light, 0 to 1 (ARIB STD-B67)."""
    return np.where(
        scene <= 1 / 12, np.sqrt(3 * scene), 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    )


def scene(k, width=192, height=112):
    """(h, w, 3) linear light in BT.709, 1 is SDR white."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = (x + 4 * k) % 192 / 191 * np.ones_like(y), np.abs(np.sin((y + k) / 20))
    return np.clip(np.stack([red, green, (x * y % 97) / 96], -1), 0, 1)


def stored(rgb, name, *, transfer, matrix=BT2020, primaries=BT2020, color_range=LIMITED):
    """A frame of the format `name` (yuv420p, yuv444p10le, ...) of R'G'B' (h, w, 3), 0 to 1."""
    height, width = rgb.shape[:2]
    frame = av.VideoFrame(width, height, name)
    bits = frame.format.components[0].bits
    kr, kb = (KR, KB) if matrix == BT2020 else (0.2126, 0.0722)
    luma = rgb @ [kr, 1 - kr - kb, kb]
    parts = [luma, (rgb[..., 2] - luma) / (2 * (1 - kb)), (rgb[..., 0] - luma) / (2 * (1 - kr))]
    for k, (plane, part) in enumerate(zip(frame.planes, parts, strict=True)):
        if k:
            across, down = width // plane.width, height // plane.height
            part = part.reshape(plane.height, down, plane.width, across).mean((1, 3))
        if color_range == LIMITED:
            part = (16 + 219 * part if k == 0 else 128 + 224 * part) * 2 ** (bits - 8)
        else:
            part = part * (2**bits - 1) + (2 ** (bits - 1) if k else 0)
        kind = np.dtype(np.uint8 if bits == 8 else np.uint16)
        lines = np.zeros((plane.height, plane.line_size // kind.itemsize), kind)
        lines[:, : plane.width] = np.clip(np.rint(part), 0, 2**bits - 1)
        plane.update(lines.tobytes())
    frame.color_trc, frame.colorspace, frame.color_primaries, frame.color_range = (
        transfer, matrix, primaries, color_range,
    )  # fmt: skip
    return frame


def pq_frame(light, name="yuv420p10le", **more):
    """A PQ frame of linear BT.709 light (h, w, 3), where 1 is 203 nits."""
    return stored(pq(np.maximum(light @ TO_2020.T, 0) * 203 / 10000), name, transfer=PQ, **more)


def hlg_frame(light, name="yuv420p10le", **more):
    """An HLG frame of linear BT.709 scene light (h, w, 3), where 1 is 75 % of the signal."""
    return stored(hlg(np.maximum(light @ TO_2020.T, 0) * 0.265), name, transfer=HLG, **more)


def sdr_frame(light, name="yuv420p10le"):
    return stored(np.power(light, 1 / 2.2), name, transfer=BT709, matrix=BT709, primaries=BT709)


def write_hdr(path: Path, frames, **more) -> Path:
    """A film of frames as the functions above make them, nearly without loss, its colours stated in the stream."""
    frames = list(frames)
    first, depth = frames[0], frames[0].format.components[0].bits
    tags = {PQ: "smpte2084", HLG: "arib-std-b67", BT709: "bt709"}[first.color_trc]
    names = ("bt2020", "bt2020nc") if first.colorspace == BT2020 else ("bt709", "bt709")
    params = f"log-level=none:crf=2:colorprim={names[0]}:transfer={tags}:colormatrix={names[1]}:range=limited"
    options = {"x265-params": params, "preset": "ultrafast"}
    assert depth in (8, 10, 12)
    return write_video(path, frames, codec="libx265", pixel_format=first.format.name, options=options | more)


def shown_in_sdr(frame: av.VideoFrame) -> np.ndarray:
    """(h, w, 3) float64, 0 to 255: what the stored values of a frame in BT.2020 are in SDR, before rounding."""
    bits = frame.format.components[0].bits
    kind = np.dtype(np.uint8 if bits == 8 else np.uint16)
    planes = [
        np.frombuffer(plane, kind).reshape(plane.height, -1)[:, : plane.width].astype(float) for plane in frame.planes
    ]
    for k in (1, 2):
        if planes[k].shape[1] < planes[0].shape[1]:
            planes[k] = doubled(planes[k].T).T
        if planes[k].shape[0] < planes[0].shape[0]:
            planes[k] = doubled(planes[k])
    luma, blue, red = planes
    if frame.color_range == FULL:
        most = 2**bits - 1
        luma, blue, red = luma / most, *((c - 2 ** (bits - 1)) / most for c in (blue, red))
    else:
        luma, blue, red = (luma / 2 ** (bits - 8) - 16) / 219, *((c / 2 ** (bits - 8) - 128) / 224 for c in (blue, red))
    r, b = luma + 2 * (1 - KR) * red, luma + 2 * (1 - KB) * blue
    g = (luma - KR * r - KB * b) / (1 - KR - KB)
    value = np.clip(np.stack([r, g, b], -1), 0, 1)
    if frame.color_trc == PQ:
        nits = 10000 * pq_light(value)
    else:
        light = np.where(value <= 0.5, value**2 / 3, (np.exp((value - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        nits = 1000 * (light @ [KR, 1 - KR - KB, KB])[..., None] ** 0.2 * light
    x = np.maximum(nits @ TO_709.T, 0) / 203
    return 255 * np.clip(mobius(x, 0.7, 10000 / 203), 0, 1) ** (1 / 2.4)


def mobius(x, j, peak):
    """As in libavfilter/vf_tonemap.c."""
    a = -j * j * (peak - 1) / (j * j - 2 * j + peak)
    b = (j * j - 2 * j * peak + peak) / (peak - 1)
    return np.where(x <= j, x, (b * b + 2 * b * j + j * j) / (b - a) * (x + a) / (x + b))


def doubled(lines):
    """(2 n, w): lines (n, w) between which it is interpolated, a line of colour lying midway between two of luma."""
    above, below = np.vstack([lines[:1], lines[:-1]]), np.vstack([lines[1:], lines[-1:]])
    made = np.empty((2 * len(lines), lines.shape[1]))
    made[0::2], made[1::2] = 0.75 * lines + 0.25 * above, 0.75 * lines + 0.25 * below
    return made
