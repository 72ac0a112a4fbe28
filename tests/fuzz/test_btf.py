"""Whatever bytes type information has: types, C, text and values, or a BtfError, and soon."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.btf import SAMPLE, encoded
from tests.fuzz.effort import often, within

from penstock.compiler.lang.source import Source
from penstock.errors import BtfError, PolicyError
from penstock.kernel.btf import Btf
from penstock.kernel.btf_c import header
from penstock.kernel.btf_source import btf_of_object
from penstock.kernel.btf_text import lines, record
from penstock.observe.typed.notation import parse, render
from penstock.observe.typed.of_btf import shape_of
from penstock.observe.typed.shape import Writing

SEEDS = [encoded(SAMPLE), encoded(SAMPLE, ">"), encoded(SAMPLE[:8])]
MOST = 4096


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Good BTF with some bytes changed, cut out or repeated."""
    content = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 8))):
        at = draw(st.integers(8, len(content)))
        match draw(st.sampled_from(["byte", "word", "cut", "small"])):
            case "byte":
                content[at : at + 1] = draw(st.binary(max_size=1))
            case "small":
                content[at : at + 1] = bytes([draw(st.integers(0, 24))])
            case "word":
                content[at & ~3 : (at & ~3) + 4] = draw(st.binary(min_size=4, max_size=4))
            case "cut":
                del content[at:]
    return bytes(content)


def use(data: bytes) -> None:
    try:
        btf = Btf(data)
    except BtfError:
        return
    with suppress(BtfError):
        assert header(btf).startswith("#ifndef")
    for number in range(len(btf) + 1):
        with suppress(BtfError):
            assert lines(btf, number)
            assert record(btf, number)["id"] == number
        with suppress(BtfError):
            size = btf.size(number)
            if size <= MOST:
                shown = shape_of(btf, number, size).decode(bytes(size), 0)
                assert isinstance(render(shown), str)


@settings(max_examples=often(500))
@given(mutated())
@within(4)
def test_mutated_btf(data: bytes) -> None:
    use(data)


@settings(max_examples=often(200))
@given(st.binary(max_size=300))
@within(4)
def test_anything_behind_a_good_header(rest: bytes) -> None:
    half = len(rest) // 2
    head = SEEDS[0][:8] + b"".join(size.to_bytes(4, "little") for size in (0, half, half, len(rest) - half))
    use(head + rest)


@settings(max_examples=often(100))
@given(st.binary(max_size=200))
@within(2)
def test_anything_as_an_object(data: bytes) -> None:
    for content in (data, b"\x7fELF\x02\x01" + data):
        with suppress(BtfError):
            use(btf_of_object(content)._types)


@settings(max_examples=often(500))
@given(st.text(alphabet='{}[],:"\\ ab01.x-/', max_size=60) | st.text(max_size=30))
@within(2)
def test_whatever_is_written_is_a_value_or_a_fault(text: str) -> None:
    btf = Btf(SEEDS[0])
    source = Source("value", text)
    for number in (1, 3, 4, 5, 8, 23):
        writing, size = Writing(source), btf.size(number)
        try:
            node = parse(source)
        except PolicyError:
            return
        out = bytearray(size)
        shape_of(btf, number, size).encode(node, out, 0, writing)
        assert len(out) == size
