"""Read `over RATE [bytes] per KEY [burst B] [size N]` and `sample 1/N`.

over 1000/s per src burst 2k      ->  Over(1000, "s", Key("src"), burst=2000)
over 10M/s bytes per src/24,56    ->  Over(10000000, "s", Key("src", (24, 56)), bytes=True)

Their words are words only here; anywhere else they may be names of hosts.
"""

from __future__ import annotations

import re
from typing import cast

from penstock.compiler.lang.ast import Over, Sample
from penstock.compiler.lang.lexer import Token
from penstock.compiler.lang.tokens import TokenStream
from penstock.compiler.lang.words import suggestion
from penstock.model.limiter import KEY_WORDS, MOST_SIZE, PERIODS_NS, PREFIXED, WAYS, Key, KeyKind, Period

_AMOUNT = re.compile(r"([0-9]+)([kMG]?)")
_UNITS = {"": 1, "k": 1000, "M": 10**6, "G": 10**9}
_MOST = 1 << 40
_EXAMPLE = "as in `over 1000/s per src`"
_KEYS = tuple(KEY_WORDS)


def is_amount(token: Token) -> bool:
    """Whether a token is a number such as 1000, 10k or 2M."""
    return token.kind == "number" or (token.kind == "name" and _AMOUNT.fullmatch(token.text) is not None)


def read_over(stream: TokenStream) -> Over:
    """The limiter that comes next.

    Raises:
        SyntaxFault: the words do not make one.
    """
    word = stream.take()
    tokens = _amount(stream, "a rate")
    period = _period(stream)
    of_bytes = _take_name(stream, "bytes") is not None
    if _take_name(stream, "per") is None:
        hint = f"{_EXAMPLE}; the keys are {', '.join(_KEYS)}"
        raise stream.unexpected("`per` and what each bucket is for", hint=hint)
    key = _key(stream)
    burst = _option(stream, "burst", _MOST)
    size = _option(stream, "size", MOST_SIZE)
    if size is not None and size < WAYS:
        stream.faults.error("PS105", f"fewer than {WAYS} buckets are not kept", stream.last.span)
    return Over(tokens, period, key, of_bytes, burst, size, word.span.to(stream.last.span))


def read_sample(stream: TokenStream) -> Sample:
    """The sample that comes next.

    Raises:
        SyntaxFault: the words do not make one.
    """
    word, hint = stream.take(), "as in `sample 1/100`, which is true of one packet in a hundred"
    one = stream.next
    if one.kind != "number" or one.value != 1:
        raise stream.unexpected("`1/N`", hint=hint)
    stream.take()
    _slash(stream, hint)
    if stream.next.kind != "number" or not stream.next.value:
        raise stream.unexpected("a number of packets", hint=hint)
    number = stream.take()
    return Sample(number.value, word.span.to(number.span))


# ── parts ────────────────────────────────────────────────────────────────────


def _take_name(stream: TokenStream, name: str) -> Token | None:
    is_next = stream.next.kind == "name" and stream.next.text == name
    return stream.take() if is_next else None


def _slash(stream: TokenStream, hint: str) -> None:
    if stream.take_mark("/") is None:
        raise stream.unexpected("`/`", hint=hint)


def _amount(stream: TokenStream, wanted: str, most: int = _MOST) -> int:
    """A number above 0, with or without a suffix."""
    token = stream.next
    if not is_amount(token):
        raise stream.unexpected(wanted, hint=f"{_EXAMPLE}; 10k is 10,000 and 2M two million")
    stream.take()
    value = token.value
    if token.kind == "name" and (found := _AMOUNT.fullmatch(token.text)):
        value = int(found[1][:24]) * _UNITS[found[2]]
    if not 0 < value <= most:
        message = "this has to be at least 1" if not value else f"this is too big: at most {most:,}"
        stream.faults.error("PS104", message, token.span)
        return max(1, min(value, most))
    return value


def _period(stream: TokenStream) -> Period:
    _slash(stream, _EXAMPLE)
    token = stream.next
    if token.kind != "name" or token.text not in PERIODS_NS:
        raise stream.unexpected("`s`, `m` or `h`", hint="a rate is so many a second, a minute or an hour")
    return cast("Period", stream.take().text)


def _option(stream: TokenStream, name: str, most: int) -> int | None:
    if _take_name(stream, name) is None:
        return None
    return _amount(stream, "a number", most)


def _key(stream: TokenStream) -> Key:
    token = stream.next
    if token.kind not in {"word", "name"} or token.text not in KEY_WORDS:
        near = suggestion(token.text, _KEYS) if token.kind in {"word", "name"} else None
        hint = near or f"one of {', '.join(_KEYS)}; src and dst may be cut: src/24,56"
        raise stream.faults.fail(
            "PS103", f"`{token.text[:40]}` is nothing that buckets are for", token.span, hint=hint
        )
    kind = cast("KeyKind", stream.take().text)
    if kind not in PREFIXED or stream.take_mark("/") is None:
        return Key(kind)
    four = _length(stream, 32)
    six = _length(stream, 128) if stream.take_mark(",") else 128
    return Key(kind, (four, six))


def _length(stream: TokenStream, most: int) -> int:
    if stream.next.kind != "number":
        raise stream.unexpected("the length of a prefix", hint="as in `src/24` or, with IPv6's, `src/24,56`")
    token = stream.take()
    if token.value > most:
        stream.faults.error("PS104", f"a prefix has at most {most} bits here", token.span)
        return most
    return token.value
