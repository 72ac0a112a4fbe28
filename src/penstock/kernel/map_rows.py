"""Thousands of entries of one hash put in, turned or removed in one call, by a program in the kernel.

    with map_rows(table, 10_000) as rows:          None where the kernel takes no such program
        is_new = rows.put(keys, values)            those that are not there yet; which these were
        was_there = rows.turn(keys, words, keep)   of those that are there, the first word of their values
        rows.remove(keys)

bpf(2) can write many entries in one call, but only look one up, and what it writes over something lies in
new memory.  Here a socket filter is run as often as there are rows (BPF_PROG_TEST_RUN), and each run does the
next row of an array: it finds the entry once and stores into it.
"""

from __future__ import annotations

import errno
import struct
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.errors import KernelError
from penstock.kernel.capability import kernel_error
from penstock.kernel.libc import address_of, bpf
from penstock.kernel.maps import MMAPABLE, NOEXIST, Map, MapType
from penstock.kernel.probe.attempt import RETURN_ZERO, ProgramTry, call, instruction, loaded
from penstock.kernel.syscall import Command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Numbers = NDArray[np.uint64]

_SOCKET_FILTER = 1  # enum bpf_prog_type
_LOOKUP, _UPDATE, _DELETE = 1, 2, 3  # enum bpf_func_id
_PUT, _TURN, _REMOVE = 0, 1, 2
#: The head, in the row's place 0: the row that was done last, what is done, and the bits that `turn` keeps.
_HEAD = struct.Struct("=IIQ")
_WORD = 8
_MOST_ROWS = 1 << 15
#: union bpf_attr of BPF_PROG_TEST_RUN: descriptor, frame, repeat.
_RUN = struct.Struct("=I4xI4xQ8xI4x32x")
_FRAME = bytes(64)


class MapRows:
    """Rows of work on one map, with the program that does them."""

    def __init__(self, table: Map, work: Map, program: int) -> None:
        self._table, self._program = table, program
        self._keys_at, self._values_at = _WORD, _WORD + _padded(table.info.key_size)
        self._memory = work.memory()
        self._rows = np.frombuffer(self._memory, np.uint8).reshape(work.info.max_entries, -1)

    def put(self, keys: NDArray[np.uint8], values: NDArray[Any]) -> NDArray[np.bool_]:
        """Put in the entries that are not there; a mask of those.

        Raises:
            KernelError: there is no room, say; some have been put in.
        """
        done: NDArray[np.bool_] = self._done(_PUT, keys, values, (0, -errno.EEXIST)) == 0
        return done

    def turn(self, keys: NDArray[np.uint8], words: Numbers, keep: int = 0) -> NDArray[np.bool_]:
        """Give the first word of values these bits, and those of its own that `keep` has; a mask of what is there.

        Packets meet a word as it was or as it is.  Raises KernelError.
        """
        done: NDArray[np.bool_] = self._done(_TURN, keys, words.reshape(-1, 1), (0, -errno.ENOENT), keep) == 0
        return done

    def remove(self, keys: NDArray[np.uint8]) -> None:
        """Remove entries; those that are not there are passed over.  Raises KernelError."""
        self._done(_REMOVE, keys, np.zeros((len(keys), 1), np.uint64), (0, -errno.ENOENT))

    def _done(
        self,
        operation: int,
        keys: NDArray[np.uint8],
        values: NDArray[Any],
        usual: tuple[int, int],
        keep: int = 0,
    ) -> NDArray[np.int64]:
        """What the kernel's helper said of each row."""
        most = len(self._rows) - 1
        parts = []
        for at in range(0, len(keys), most):
            some, rows = keys[at : at + most], self._rows[1 : 1 + min(most, len(keys) - at)]
            laid = values[at : at + most].view(np.uint8).reshape(len(some), -1)
            rows[:, self._keys_at : self._keys_at + some.shape[1]] = some
            rows[:, self._values_at : self._values_at + laid.shape[1]] = laid
            self._run(operation, len(some), keep)
            parts.append(rows[:, :_WORD].copy().view(np.int64).reshape(-1))
        said = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        if (wrong := said[~np.isin(said, usual)]).size:
            raise kernel_error("update map", self._table.name, -int(wrong[0]))
        return said

    def _run(self, operation: int, count: int, keep: int) -> None:
        _HEAD.pack_into(self._memory, 0, 0, operation, keep)
        frame = bytearray(_FRAME)
        while (done := _HEAD.unpack_from(self._memory)[0]) < count:
            attr = bytearray(_RUN.pack(self._program, len(frame), address_of(frame), count - done))
            try:
                bpf(Command.PROG_TEST_RUN, attr)
            except OSError as error:
                # A signal ends it between two rows.
                if error.errno != errno.EINTR:
                    raise kernel_error("update map", self._table.name, error.errno or 0) from error


@contextmanager
def map_rows(table: Map, count: int) -> Iterator[MapRows | None]:
    """Room for so many rows at once, or fewer if they are very many; None where the kernel refuses room or program."""
    key, value = _padded(table.info.key_size), _padded(table.size)
    with ExitStack() as held:
        rows = None
        with suppress(KernelError):
            work = held.enter_context(_work(_WORD + key + value, 1 + max(min(count, _MOST_ROWS), 1)))
            wanted = ProgramTry(_SOCKET_FILTER), _program(work.fd, table.fd, _WORD + key)
            program = held.enter_context(loaded(*wanted))
            rows = None if program is None else MapRows(table, work, program)
        yield rows


def _work(size: int, count: int) -> Map:
    return Map.create(
        MapType.ARRAY, "ps_rows", key_size=4, value_size=size, max_entries=count, flags=MMAPABLE
    )


def _padded(size: int) -> int:
    return size + 7 & ~7


def _program(work: int, table: int, values_at: int) -> bytes:
    """Do the next row.  r6 is the head, r7 the row."""
    store = _stx(_DW, 7, 0, 0)
    lookup = _map(1, table) + _reg(2, 7) + _add(2, _WORD) + call(_LOOKUP)
    turn = (
        _ldx(_DW, 1, 6, 8) + _ldx(_DW, 2, 0, 0) + instruction(0x5F, 2, 1) + _ldx(_DW, 3, 7, values_at)
        + instruction(0x4F, 2, 3) + _stx(_DW, 0, 2, 0) + _imm(0, 0)
    )  # fmt: skip
    turn = lookup + _unless(0, 0, 2) + _imm(0, -errno.ENOENT) + _jump(len(turn) // 8) + turn
    remove = _map(1, table) + _reg(2, 7) + _add(2, _WORD) + call(_DELETE) + _jump(len(turn) // 8)
    put = (
        _map(1, table) + _reg(2, 7) + _add(2, _WORD) + _reg(3, 7) + _add(3, values_at) + _imm(4, NOEXIST)
        + call(_UPDATE) + _jump((len(remove) + len(turn)) // 8)
    )  # fmt: skip
    work_of = (
        _ldx(_W, 8, 6, 4) + _if(8, _TURN, 1 + (len(put) + len(remove)) // 8) + _if(8, _REMOVE, len(put) // 8)
    )
    row = work_of + put + remove + turn + store
    find = _map(1, work) + _reg(2, 10) + _add(2, -4) + call(_LOOKUP) + _unless(0, 0, 2) + RETURN_ZERO
    following = _reg(6, 0) + _ldx(_W, 1, 6, 0) + _add(1, 1) + _stx(_W, 6, 1, 0) + _stx(_W, 10, 1, -4)
    return instruction(0x62, 10, 0, -4, 0) + find + following + find + _reg(7, 0) + row + RETURN_ZERO


# ── instructions (RFC 9669) ──────────────────────────────────────────────────

_W, _DW = 0x00, 0x18


def _map(dst: int, fd: int) -> bytes:
    return instruction(0x18, dst, 1, 0, fd) + instruction(0)


def _reg(dst: int, src: int) -> bytes:
    return instruction(0xBF, dst, src)


def _imm(dst: int, value: int) -> bytes:
    return instruction(0xB7, dst, value=value)


def _add(dst: int, value: int) -> bytes:
    return instruction(0x07, dst, value=value)


def _ldx(size: int, dst: int, src: int, offset: int) -> bytes:
    return instruction(0x61 | size, dst, src, offset)


def _stx(size: int, dst: int, src: int, offset: int) -> bytes:
    return instruction(0x63 | size, dst, src, offset)


def _if(dst: int, value: int, skip: int) -> bytes:
    return instruction(0x15, dst, 0, skip, value)


def _unless(dst: int, value: int, skip: int) -> bytes:
    return instruction(0x55, dst, 0, skip, value)


def _jump(skip: int) -> bytes:
    return instruction(0x05, offset=skip)
