"""What is said over the daemon's sockets: one JSON document a line, in both directions.

    {"ask":"SetAdd","set":"banned","entries":["203.0.113.9"],"timeout":3600.0}
    {"ok":{"set":"banned","added":1,"changed":0,"removed":0,"entries":1}}
    {"error":{"message":"there is no set `bannd`","hint":"there are: banned","exit":1}}

A request may carry `penstock`, the version of this protocol, and `root`, the
directory of pins that it means; a daemon of another version or another
directory says so and does nothing.  A field that is not known is refused, never
passed over: it might have been the one that limits what is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from penstock.errors import DaemonError, PenstockError
from penstock.model.sets import LONGEST_S

VERSION = 1
#: Who may ask may not have a reply of a million entries put together: `set export` reads the set itself.
MOST_LISTED = 100_000


class Request(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag=True, forbid_unknown_fields=True
):
    """What all requests have."""

    penstock: int = VERSION
    root: str | None = None


class Ping(Request, frozen=True):
    """Is somebody there?"""


class Status(Request, frozen=True):
    """What the daemon does, and what is wrong."""


class Reload(Request, frozen=True):
    """Read settings and policies again, and put in place what they say."""


class Release(Request, frozen=True):
    """Somebody takes the policy off an interface: do not put it back before the next reload.

    `netns` is the inode of the network namespace that is meant.
    """

    interface: str
    netns: int
    hook: str | None = None


class SetAdd(Request, frozen=True):
    """Add entries to a set; `timeout` in seconds."""

    set: str
    entries: tuple[str, ...]
    timeout: Annotated[float, msgspec.Meta(gt=0, le=LONGEST_S)] | None = None
    forever: bool = False
    comment: str | None = None


class SetRemove(Request, frozen=True):
    """Take entries back."""

    set: str
    entries: tuple[str, ...]


class SetWrite(Request, frozen=True):
    """Add the entries of a text, or make them the only ones of commands (`whole`).

    The text itself, of `length` bytes, is sent when the daemon has answered that it takes it; the reply to it is the
    second one.  `source` is what the text is called.
    """

    set: str
    length: Annotated[int, msgspec.Meta(ge=0)]
    whole: bool = False
    timeout: Annotated[float, msgspec.Meta(gt=0, le=LONGEST_S)] | None = None
    forever: bool = False
    comment: str | None = None
    source: str = "text"


class SetUpdate(Request, frozen=True):
    """Add the entries of one text and take those of another back, in one step.

    The texts come as that of `SetWrite` does, one behind the other: the `first` bytes are what is added.  `names` is
    what they are called; one that is None is empty.
    """

    set: str
    length: Annotated[int, msgspec.Meta(ge=0)]
    first: Annotated[int, msgspec.Meta(ge=0)]
    names: tuple[str | None, str | None] = (None, None)
    timeout: Annotated[float, msgspec.Meta(gt=0, le=LONGEST_S)] | None = None
    forever: bool = False
    comment: str | None = None


class SetFlush(Request, frozen=True):
    """Take back all entries of a set that no feed lists."""

    set: str


class SetSweep(Request, frozen=True):
    """Give back the memory of entries that have expired."""

    set: str


class SetTest(Request, frozen=True):
    """Whether a packet would find these entries in a set."""

    set: str
    entries: tuple[str, ...]


class Filters(Request, frozen=True):
    """What is in place: rules, counters, what is wrong; of one interface, or of all.

    `netns` is the inode of the network namespace that is meant.
    """

    netns: int
    interface: str | None = None


class SetList(Request, frozen=True):
    """The sets, or the entries of one, at most `limit` of them."""

    set: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=0, le=MOST_LISTED)] = 1000


class Why(Request, frozen=True):
    """Who put an address into which set."""

    address: str


class FeedList(Request, frozen=True):
    """The feeds, with age and state."""


class FeedAdd(Request, frozen=True):
    """Fill a set from a source too, which is asked `every` so many seconds."""

    set: str
    source: str
    format: str | None = None
    every: Annotated[float, msgspec.Meta(gt=0)] | None = None
    allow_http: bool = False
    is_private: bool = False


class FeedRemove(Request, frozen=True):
    """Fill a set no more from a feed; `sources` are what it may be called, the first that is one counts."""

    set: str
    sources: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class FeedRefresh(Request, frozen=True):
    """Fold last good copies into the sets; with `names`, of feeds or sets, ask their sources before.

    No names at all (`[]`) are all of them.
    """

    names: tuple[str, ...] | None = None


Reading = Ping | Status | Filters | SetList | SetTest | Why | FeedList
Texted = SetWrite | SetUpdate
Changing = (
    Reload | Release | SetAdd | SetRemove | Texted | SetFlush | SetSweep | FeedAdd | FeedRemove | FeedRefresh
)
Asked = Reading | Changing


@dataclass(frozen=True, slots=True)
class WithText:
    """A request whose text has come."""

    request: Texted
    text: bytes


_decoder: msgspec.json.Decoder[Asked] = msgspec.json.Decoder(Asked)
_encoder = msgspec.json.Encoder()
#: What decoding raises, whatever the bytes: one that is nested deeply ends the stack.
_FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class ElsewhereError(DaemonError):
    """The daemon is one of another directory of pins: the command does the work itself."""


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a request was not done; `exit` is what a command ends with that asked for it."""

    message: str
    hint: str | None = None
    exit: int = 0
    is_elsewhere: bool = False


def is_change(request: Asked) -> bool:
    """Whether a request may only be made by who may change something."""
    return isinstance(request, Changing)


def weight(request: Asked) -> int:
    """What a question costs the daemon, in plain ones."""
    match request:
        case Why():
            return 50
        case SetList(limit=limit):
            return 10 + (limit // 1000 if request.set is not None else 0)
        case FeedList() | Filters():
            return 10
        case SetTest(entries=entries):
            return 1 + len(entries) // 100
        case _:
            return 1


def decode(line: bytes) -> Asked:
    """The request in a line.

    Raises:
        DaemonError: it is none, or one of another version; the message is a sentence for who asked.
    """
    try:
        found = _decoder.decode(line)
    except _FAULTS as error:
        raise DaemonError(f"the daemon does not understand the request: {error}", hint=_hint(line)) from error
    if found.penstock != VERSION:
        raise _other_version(found.penstock)
    return found


def done(content: object) -> bytes:
    """The line of a reply."""
    return _encoder.encode({"ok": content}) + b"\n"


def refused(error: PenstockError) -> bytes:
    """The line that says why not."""
    return _encoder.encode({"error": _fault(error)}) + b"\n"


def _fault(error: PenstockError) -> Fault:
    return Fault(error.message, error.hint, error.exit_code, isinstance(error, ElsewhereError))


def _hint(line: bytes) -> str | None:
    """What to do about a request that another version of penstock may have made."""
    try:
        said: Any = msgspec.json.decode(line)
    except _FAULTS:
        return None
    number = said.get("penstock", VERSION) if isinstance(said, dict) else VERSION
    return _other_version(number).hint if number != VERSION else None


def _other_version(number: object) -> DaemonError:
    return DaemonError(
        f"the daemon speaks version {VERSION} of its protocol, and was asked in version {number}",
        hint="restart the daemon after an upgrade: what it has put in place filters on meanwhile",
    )
