"""The lines of flat sets, without a kernel: what they hold is what a model in Python says, after any changes."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from types import FrameType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.model.flat import HASHES, LINE_BYTES, PIVOT, SLOTS, Field, front_lines, home_v6
from penstock.model.sets import SetSpec
from penstock.pipeline.flat_batch import Batch
from penstock.pipeline.flat_blocks import NoRoomError
from penstock.pipeline.flat_content import Content
from penstock.pipeline.flat_filling import fill, fill_front, filling
from penstock.pipeline.flat_keys import packed, unpacked
from penstock.pipeline.flat_many import in_place
from penstock.pipeline.flat_present import Difference, Present
from penstock.pipeline.set_keys import keys_of, text_of

SPEC = SetSpec("s", ("net",))
Network = IPv4Network | IPv6Network
WIDTHS = {"v4": 32, "v6": 128}


@st.composite
def networks(draw: st.DrawFn, family: str) -> Network:
    """Networks that nest, touch and repeat: few values in few octets, any length."""
    width = WIDTHS[family]
    at = draw(st.lists(st.sampled_from([0, 1, 2, 127, 128, 255]), min_size=width // 8, max_size=width // 8))
    if family == "v6":
        at[2:14] = draw(st.sampled_from([at[2:14], [0] * 12]))
    length = draw(st.one_of(st.integers(0, width), st.sampled_from([width, width - 8, 24, 18, 17, 16])))
    address = int.from_bytes(bytes(at), "big") >> width - length << width - length
    return ip_network((address.to_bytes(width // 8, "big"), length))


def sorted_keys(family: str, nets: Iterable[Network]) -> np.ndarray:
    raw = b"".join(key for net in nets for _, key in keys_of(SPEC, str(net)))
    width = SPEC.key_bytes(family)
    return np.sort(packed(family, np.frombuffer(raw, np.uint8).reshape(-1, width)))


def made(contents: dict[str, Sequence[Network]]) -> Content:
    whole = filling({family: sorted_keys(family, set(contents.get(family, ()))) for family in WIDTHS})
    memory, front = (memoryview(bytearray(size)) for size in (32 * whole.total, 64 * front_lines(4096)))
    fill(memory, whole)
    fill_front(front, whole)
    return Content(memory, front)


def texts(content: Content, family: str) -> list[str]:
    """All of them, which read one after the other and all at once are the same."""
    listed = [key if isinstance(key, int) else key.rstrip(b"\0") for key in content.keys(family)]
    present = Present.of(content, family)
    assert listed == present.all().tolist()
    assert content.count_of(family) == present.count == len(listed)
    return [text_of(SPEC, family, key.tobytes()) for key in unpacked(family, present.all())]


def disagreements(content: Content, family: str, nets: Iterable[Network], asked: Iterable[int]) -> list[str]:
    """Addresses of which the lines say what the model does not."""
    found = []
    spans = [(int(net[0]), int(net[-1])) for net in nets]
    for address in asked:
        expected = any(first <= address <= last for first, last in spans)
        if content.holds(family, address) != expected:
            found.append(f"{address:x}: not {expected}")
    return found


def boundaries(family: str, nets: Iterable[Network]) -> set[int]:
    """The first and last addresses of networks, and those before and behind."""
    near = {int(net[at]) + step for net in nets for at in (0, -1) for step in (-1, 0, 1)}
    return {one for one in near if 0 <= one < 1 << WIDTHS[family]}


@pytest.mark.parametrize("family", WIDTHS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_lines_hold_what_the_networks_do(family: str, data: st.DataObject) -> None:
    nets = data.draw(st.lists(networks(family), max_size=40))
    content = made({family: nets})
    assert (
        disagreements(content, family, nets, boundaries(family, nets) | {0, (1 << WIDTHS[family]) - 1}) == []
    )
    assert content.count == len(set(nets))
    assert texts(content, family) == [
        str(net) for net in sorted(set(nets), key=lambda net: (int(net[0]), net.prefixlen))
    ]


@pytest.mark.parametrize("family", WIDTHS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_changes_in_place_leave_what_the_model_has(family: str, data: st.DataObject) -> None:
    pool = data.draw(st.lists(networks(family), min_size=1, max_size=12, unique=True))
    model = set(data.draw(st.lists(st.sampled_from(pool), max_size=6)))
    content = made({family: list(model)})
    for net in data.draw(st.lists(st.sampled_from(pool), max_size=16)):
        if toggle(content, [net]):
            model ^= {net}
        assert content.has(*key(net)) == (net in model)
    assert disagreements(content, family, model, boundaries(family, pool)) == []
    assert set(texts(content, family)) == {str(net) for net in model}
    assert content.count == len(model)


@pytest.mark.parametrize("family", WIDTHS)
def test_thousands_of_random_networks(family: str) -> None:
    """Many blocks, leaves and levels; most single changes are done in place."""
    chance, width = random.Random(5), WIDTHS[family]
    base = 0x2001 << 112 if family == "v6" else 0
    nets = set[Network]()
    while len(nets) < 3000:
        length = chance.choice([19, 22, 24, 25, 27, 32] if family == "v4" else [20, 32, 47, 48, 64, 65, 128])
        address = base | chance.getrandbits(32 if family == "v4" else 112)
        if family == "v6" and chance.random() < 0.7:
            address = base | (address & 0x3F << 80) | address & 0xFF
        nets.add(
            ip_network((address >> width - length << width - length, length), strict=False)
            if family == "v6"
            else IPv4Network((address >> 32 - length << 32 - length, length))
        )
    content = made({family: sorted(nets, key=str)})
    done, gone = 0, set[Network]()
    for net in chance.sample(sorted(nets, key=str), 200):
        if toggle(content, [net]):
            nets.discard(net)
            gone.add(net)
            done += 1
    for net in chance.sample(sorted(gone, key=str), 50):
        assert toggle(content, [net])
        nets.add(net)
        done -= 1
    asked = chance.sample(sorted(boundaries(family, nets)), 1500)
    assert disagreements(content, family, nets, asked) == []
    assert content.count == len(nets) == 3000 - done
    assert done == 150


def test_networks_that_differ_in_the_last_bits_take_little_room() -> None:
    """One, two or nine hosts in each network of 64 bits: at worst what a block for each byte takes."""
    for near, most in ((1, 90), (2, 80), (8, 50), (9, 220)):
        nets = [
            IPv6Network(((0x2001 << 112) + (n << 80) + low, 128)) for n in range(400) for low in range(near)
        ]
        content = made({"v6": nets})
        taken = LINE_BYTES * (content.header(Field.NEXT) - made({}).header(Field.NEXT))
        assert taken / len(nets) < most
        assert toggle(content, nets[-3:])
        left = nets[:-3]
        asked = boundaries("v6", nets[-40:]) & {int(net[0]) for net in nets}
        assert disagreements(content, "v6", left[-60:], asked) == []


def key(net: Network) -> tuple[str, int, int]:
    return f"v{net.version}", int(net.network_address), net.prefixlen


def toggle(content: Content, nets: Iterable[Network], *, many: bool = False) -> bool:
    """Let those go that are there, and the others come, at once; False, and nothing done, if not in place."""
    if many:
        return in_place(content, {family: difference(content, family, nets) for family in WIDTHS})
    batch = Batch(content)
    try:
        for net in nets:
            batch.change(*key(net), is_added=not content.has(*key(net)))
    except NoRoomError:
        return False
    batch.happen()
    return True


def difference(content: Content, family: str, nets: Iterable[Network]) -> Difference:
    """The same of a family, as arrays, in any order."""
    present = Present.of(content, family)
    keys = sorted_keys(family, [net for net in nets if key(net)[0] == family])[::-1]
    return Difference.none(present).going(keys).coming(keys[~present.has(keys)])


@pytest.mark.parametrize("many", [False, True], ids=["few", "many"])
@pytest.mark.parametrize("family", WIDTHS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_batches_in_place_leave_what_the_model_has(family: str, many: bool, data: st.DataObject) -> None:
    """Nets that hide others come and go with them, in one batch and in the next; wide ones where numpy does it."""
    least = 4 if many and family == "v4" else 19
    pool = [
        net
        for net in data.draw(st.lists(networks(family), min_size=1, max_size=20, unique=True))
        if net.prefixlen >= least
    ] or [ip_network("10.0.0.0/24" if family == "v4" else "2001:db8::/48")]
    model = set(data.draw(st.lists(st.sampled_from(pool), max_size=10)))
    content = made({family: list(model)})
    for batch in data.draw(st.lists(st.sets(st.sampled_from(pool), min_size=1, max_size=9), max_size=4)):
        if not toggle(content, batch, many=many):
            # Of the root more words than the log has lines, in this batch and those before.
            assert many
            assert any(net.prefixlen < 13 for net in pool)
            continue
        model ^= batch
        assert disagreements(content, family, model, boundaries(family, pool)) == []
        assert {net for net in pool if content.has(*key(net))} == model
    assert set(texts(content, family)) == {str(net) for net in model}
    assert content.count == len(model)


def test_a_table_takes_what_there_are_lines_for_and_finds_it() -> None:
    """Networks that lie behind others of the same hash, that come again where one has gone, and that share 48 bits."""
    chance = random.Random(8)
    model: set[Network] = {ip_network("2001:db8::/48")}
    content = made({"v6": sorted(model, key=str)})
    drawn = [
        IPv6Network((chance.getrandbits(128) >> 128 - length << 128 - length, length))
        for length in (48, 48, 49, 64, 65, 127, 128)
        for _ in range(20)
    ]
    pool = [
        *drawn,
        *(net.supernet(new_prefix=48) for net in drawn[40:60]),
        *(net.supernet(2) for net in drawn[-20:]),
    ]
    for number, net in enumerate(pool):
        if not toggle(content, [net]):
            break
        model ^= {net}
        gone = chance.choice(sorted(model, key=str))
        for left in (model - {gone}, model) if number % 6 == 0 else ():
            assert toggle(content, [gone])
            assert disagreements(content, "v6", left, boundaries("v6", [gone, net])) == []
    assert content.front[SLOTS] < len(model)
    assert disagreements(content, "v6", model, boundaries("v6", pool)) == []
    assert set(texts(content, "v6")) == {str(net) for net in model}


def test_networks_that_somebody_chose_crowd_no_place_in_a_table() -> None:
    """Networks that have one hash, as long as nothing is drawn: a feed of 97 made the table grow without end."""
    high = np.arange(1 << 23, dtype=np.uint64)
    numbers = (high << np.uint64(32) | high ^ np.uint64(4711)) * np.uint64(pow(HASHES[0], -1, 1 << 64))
    chosen = numbers[numbers >> np.uint64(PIVOT) == PIVOT << 56 - PIVOT] & np.uint64((1 << PIVOT) - 1)
    assert len({home_v6(number, 1 << 31, 0) for number in chosen.tolist()}) == 1
    nets = [IPv6Network((number << 128 - PIVOT, PIVOT)) for number in chosen[:110].tolist()]
    content = made({"v6": nets[:100]})
    assert content.front[SLOTS] < 4 * len(nets)
    assert all(toggle(content, [net]) for net in nets[100:])
    assert disagreements(content, "v6", nets, boundaries("v6", nets)) == []


@pytest.mark.check(36)
@pytest.mark.parametrize("many", [False, True], ids=["few", "many"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_check_36_a_batch_that_ends_at_any_line_has_happened_or_not(many: bool, data: st.DataObject) -> None:
    """Whoever is interrupted leaves all of it or nothing, to packets and in the list, and the next one repairs it."""
    drawn = [
        *data.draw(st.lists(networks("v4"), min_size=4, max_size=12, unique=True)),
        *data.draw(st.lists(networks("v6"), min_size=2, max_size=8, unique=True)),
    ]
    least = {4: 14 if many else 19, 6: 19}
    pool = sorted({net for net in drawn if net.prefixlen >= least[net.version]}, key=str) or [
        ip_network("10.0.0.0/24")
    ]
    old = data.draw(st.sets(st.sampled_from(pool)))
    batch = data.draw(st.sets(st.sampled_from(pool), min_size=1))
    before = made({f: [net for net in old if key(net)[0] == f] for f in WIDTHS})
    total = lines_of(lambda: toggle(Content(*copied(before)), batch, many=many), None)
    stop = data.draw(st.integers(0, total - 1))
    memory = copied(before)
    lines_of(lambda: toggle(Content(*memory), batch, many=many), stop)
    left = {net for net in pool if Content(*memory).has(*key(net))}
    assert left in (old, old ^ batch)
    for settled in (False, True):
        content = Content(*memory)
        if settled:
            content.settle()
            assert list(content.log.moving()) == []
        for family in WIDTHS:
            nets = [net for net in left if key(net)[0] == family]
            of_family = [net for net in pool if key(net)[0] == family]
            assert disagreements(content, family, nets, boundaries(family, of_family)) == []
            assert set(texts(content, family)) == {str(net) for net in nets}
    again = data.draw(st.sets(st.sampled_from(pool), min_size=1))
    assert toggle(content, again, many=many)
    assert {net for net in pool if content.has(*key(net))} == left ^ again


def copied(content: Content) -> tuple[memoryview, memoryview]:
    """Its memory once more."""
    octets, front = bytearray(content.octets), bytearray(content.front)
    return memoryview(octets), memoryview(front)


class StoppedError(Exception):
    """The writer ends here."""


def lines_of(work: Any, stop: int | None) -> int:
    """How many lines of what writes in place are executed; before line `stop` it ends."""
    count = 0

    def line(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        if event == "line":
            if count == stop:
                raise StoppedError
            count += 1
        return line

    def call(frame: FrameType, _event: str, _argument: object) -> Any:
        is_asked = frame.f_code.co_name in {
            "carry_out",
            "settle",
            "begin",
            "happen",
            "_put",
            "mark",
            "_mark_v6",
            "widen",
            "name_lines",
            "name_places",
            "narrow",
        }
        return line if is_asked and "pipeline/flat_" in frame.f_code.co_filename else None

    known = sys.gettrace()
    sys.settrace(call)
    try:
        work()
    except StoppedError:
        pass
    finally:
        sys.settrace(known)
    return count
