"""The training-and-mining assertion of C2PA and CAWG in a film: whether it may train a model.

Read by `c2pa-python` from the open source in the decoder's child, since the bytes may be hostile; nothing is fetched:
manifests elsewhere, revocation lists and timestamps are left alone.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

from stages.decode.child import Child, ChildDied, ChildError, ChildTimeout
from stages.decode.messages import Call, Message
from stages.decode.reading import SafeFile
from stages.frames import SourceError
from stages.unit import Place, Row

TASK = "stages.scan.training_assertion:run"
STALL_S, LIMIT_S = 60.0, 3600.0
VALUE, FROM, CHECKED = "optout_c2pa", "optout_c2pa_from", "optout_c2pa_checked"
OFFLINE = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_timestamp_trust": False},
    "core": {"allowed_network_hosts": []},
}
LABELS = ("cawg.training-mining", "c2pa.training-mining")
# Entries by their last word, the nearest to what the latents are for first.
ENTRIES = ("ai_generative_training", "ai_training")
VALUES = {"allowed": "allowed", "notAllowed": "not allowed", "constrained": "constrained"}
NONE_FOUND = "none found"
# How files begin that the library reads manifests from: at 4, types of boxes of MP4 and MOV; at 0, other formats.
BOXES = (b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"uuid", b"pnot")
STARTS = (b"RIFF", b"\xff\xd8\xff", b"\x89PNG", b"GIF8")


def read_assertion(child: Child, uri: str, place: Place | None = None) -> Row:
    """The columns optout_c2pa, _from and _checked of a source.

    Where it can't be read, the value is NULL and _from says why: a source does not fail of this.
    """
    answers = child.call(TASK, None, _parse, source=uri, place=place, stall_s=STALL_S, limit_s=LIMIT_S)
    try:
        [(value, read_from)] = list(answers)  # to its end, or the child would be killed
    except (SourceError, ChildDied, ChildError, ChildTimeout) as error:
        value, read_from = None, f"not read: {error}"[:300]
    checked = datetime.datetime.now(datetime.UTC) if value is not None else None
    return {VALUE: value, FROM: read_from, CHECKED: checked}


def run(call: Call) -> Iterator[Message]:
    """The child's task: answers [value or null, where it was read or why not], and leaves the source open."""
    call.file.seek(0)
    start = call.file.read(12)
    if start[4:8] not in BOXES and not start.startswith(STARTS):
        yield Message([None, "not read: c2pa-python knows no manifests in files of this format"])
        return
    import c2pa

    settings = c2pa.Settings.from_dict(OFFLINE)
    with c2pa.Context(settings) as context:
        try:
            reader = c2pa.Reader.try_create(None, _Stream(call.file, call.progress), context=context)
        except c2pa.C2paError as error:
            line = " ".join(str(error).split())[:200]
            # A manifest elsewhere was not read: nothing is known of what it says.
            yield Message([None, f"not read: {line}"])
            return
        if reader is None:
            yield Message([NONE_FOUND, "the file"])
            return
        with reader:
            yield Message(list(_answer(json.loads(reader.json()))))


def _answer(store: dict[str, Any]) -> tuple[str, str]:
    """What the active manifest says. An invalid one counts, since an opt-out is not to be lost by a re-encoding."""
    label = store.get("active_manifest") or ""
    manifest = store.get("manifests", {}).get(label, {})
    signed = manifest.get("signature_info", {}).get("issuer") or "unknown"
    where = f"manifest {label}, signed by {signed}, {str(store.get('validation_state', 'unknown')).lower()}"
    assertions = {each.get("label", ""): each.get("data") for each in manifest.get("assertions", [])}
    for wanted in LABELS:
        data = next((data for name, data in assertions.items() if name.split("__")[0] == wanted), None)
        entries = data.get("entries") if isinstance(data, dict) else None
        uses = {name.rpartition(".")[2]: use for name, use in entries.items()} if isinstance(entries, dict) else {}
        for entry in ENTRIES:
            use = uses.get(entry)
            if isinstance(use, dict) and use.get("use") in VALUES:
                return VALUES[use["use"]], f"{wanted} ({entry}) in {where}"
    return NONE_FOUND, where


def _parse(message: Message) -> tuple[str | None, str]:
    match message.fields:
        case [str() | None as value, str(read_from)] if value is None or value in (*VALUES.values(), NONE_FOUND):
            return value, read_from[:1000]
    raise ValueError("expected [value, where it was read]")


class _Stream:
    """A source as c2pa reads it: every read tells the parent that the child is alive."""

    def __init__(self, file: SafeFile, progress: Callable[[int], None]):
        self._file, self._progress = file, progress
        file.seek(0)

    def read(self, length: int = -1) -> bytes:
        self._progress(0)
        return self._file.read(length)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def write(self, data: bytes) -> int:
        raise OSError("a source is never written to")

    def flush(self) -> None:
        """Nothing is written."""
