"""A hash of a decoder's frame, for comparing two decodes of one film."""

from __future__ import annotations

import av
import xxhash

from stages.decode.colour import is_full_range, is_hdr, matrix_of, planar_bits
from stages.decode.planes import plane_view


def stored_hash(frame: av.VideoFrame) -> bytes | None:
    """xxh3_128 of the stored planes, with their format and how they become colours. None for a frame that is shown
    otherwise than it is stored: interlaced, of high dynamic range, or without planes of Y, Cb and Cr.
    """
    bits = planar_bits(frame.format.name)
    if not bits or frame.interlaced_frame or is_hdr(frame):
        return None
    about = (frame.format.name, frame.width, frame.height, matrix_of(frame), is_full_range(frame))
    found = xxhash.xxh3_128(repr(about).encode())
    for number, plane in enumerate(frame.planes):
        size = (frame.width, frame.height) if number == 0 else (plane.width, plane.height)
        rows = plane_view(plane, *size, bits)
        for row in rows if rows.strides[0] != rows.shape[1] * rows.itemsize else [rows]:
            found.update(row.data)
    return found.digest()
