"""What the verifier is known to say, what it means, and what mends it.

One `Known` a mistake: its patterns match the verifier's own sentence, of Linux
5.10 to 6.18 and in wordings that older ones used; groups of a pattern are put
into the objection.  The first that matches counts, so what is special stands
before what is general.  The last word on all of it is kernel/bpf/verifier.c;
Documentation/bpf/verifier.rst shows some of the sentences.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_FEW = r"R\d+"


@dataclass(frozen=True, slots=True)
class Known:
    """A mistake: `mistake` names it in tests and docs; `where` must match the log besides, if it is given.

    A `where` may use `{register}`, the one that the sentence names.
    """

    mistake: str
    pattern: re.Pattern[str]
    objection: str
    reason: str
    change: str
    where: str = ""


def _known(
    mistake: str, patterns: tuple[str, ...], objection: str, reason: str, change: str, where: str = ""
) -> Known:
    return Known(mistake, re.compile("|".join(patterns)), objection, reason, change, where)


#: Helpers after which every pointer into the packet is void (bpf_helper_changes_pkt_data of the kernel).
MOVES_THE_PACKET = (
    r"call bpf_(?:xdp_adjust_\w+|skb_(?:pull_data|change_\w+|adjust_room|vlan_\w+|store_bytes|set_tunnel_\w+)"
    r"|l[34]_csum_replace|clone_redirect|msg_\w+_data|lwt_\w+|store_hdr_opt)#"
)

TABLE: tuple[Known, ...] = (
    _known(
        "packet pointer stale",
        (rf"(?P<register>{_FEW}) invalid mem access '(?:scalar|inv)'",),
        "{register} pointed into the packet, but a helper that was called since may have moved the packet",
        "after bpf_xdp_adjust_head, bpf_skb_pull_data and their like the packet may lie elsewhere in memory, so "
        "the kernel forgets every pointer into it",
        "read ctx->data and ctx->data_end again after that call, and check the bounds again",
        where=r"{register}(?:_r?w)?=pkt[\s\S]*" + MOVES_THE_PACKET,
    ),
    _known(
        "number as pointer",
        (
            rf"(?P<register>{_FEW}) invalid mem access '(?:scalar|inv|imm|unknown)'",
            rf"(?P<register_>{_FEW}) type=(?:scalar|inv)\w* expected=",
        ),
        "{register} is followed as a pointer, and the verifier knows it only as a number",
        "a number could be any address: only pointers that the kernel gave out, to the packet, the stack or the "
        "value of a map, may be followed",
        "take the pointer from ctx, from a map or from the stack, and keep it whole: not cut to 32 bits, not ored, "
        "not added to another pointer; memory of the kernel is read by bpf_probe_read_kernel or CO-RE",
    ),
    _known(
        "packet bounds lost",
        (
            r"invalid access to packet, off=(?P<offset>-?\d+) size=(?P<size>\d+), R\d+\(id=[1-9]\d*,",
            r"math between pkt pointer and register with unbounded min value",
            r"value -?\d+ makes pkt pointer be out of bounds",
            r"pkt pointer offset -?\d+ is not allowed",
        ),
        "packet bytes are read behind a variable offset for which no check counts",
        "a check holds for the very pointer that was compared with data_end; after arithmetic with a number from "
        "the packet it is another pointer, and where that number may be 65536 or more no check counts at all",
        "bound the number first (`if (len > 60) return …` or `len &= 0x3f`), add it, and then compare the new "
        "pointer and all that is read behind it with data_end",
    ),
    _known(
        "packet bounds missing",
        (
            r"invalid access to packet, off=(?P<offset>-?\d+) size=(?P<size>\d+), .*\(id=0,.*,r=(?P<shown>\d+)\)",
            r"invalid access to packet, off=(?P<offset_>-?\d+) size=(?P<size_>\d+)",
        ),
        "the packet is read at offset {offset} (size {size}), and it was shown to have {shown} bytes",
        "a packet may end anywhere, and what lies behind it is somebody else's memory",
        "compare with data_end before reading, on every way to this line: `if ((void *)(hdr + 1) > data_end) "
        "return …;`",
    ),
    _known(
        "helper access to the packet",
        (r"helper access to the packet is not allowed",),
        "a pointer into the packet is handed to a helper that takes none",
        "the helper checks no bounds of packets",
        "copy the bytes to a variable of the function first, and hand over its address",
    ),
    _known(
        "possible NULL",
        (
            rf"(?P<register>{_FEW}) invalid mem access '\w*_or_null\w*'",
            rf"(?P<register_>{_FEW}) type=\w*_or_null\w* expected=",
            rf"(?P<register__>{_FEW}) pointer arithmetic on \w*_or_null\w* prohibited",
            r"Possibly NULL pointer passed to (?:trusted |helper )?arg\d",
        ),
        "a pointer that may be NULL is used as if it were not",
        "a lookup gives NULL where there is no such entry, and a reservation where there is no room; following it "
        "would be a fault inside the kernel",
        "check it right after the call: `if (!value) return …;`",
    ),
    _known(
        "map value out of range",
        (
            r"unbounded memory access, make sure to bounds check",
            r"(?:min|max) value is outside of the (?:allowed memory|array) range",
            r"invalid access to map value, value_size=(?P<room>\d+) off=(?P<offset>-?\d+) size=(?P<size>\d+)",
            r"invalid access to memory, mem_size=(?P<room_>\d+) off=(?P<offset_>-?\d+) size=(?P<size_>\d+)",
            r"min value is negative, either use unsigned index",
        ),
        "an access may lie outside of the value that the pointer points to",
        "an index that was never compared with the number of elements may be any number, and what lies around the "
        "value belongs to others",
        "compare the index with the number of elements right before the access (`if (i >= 8) return …;`), or mask "
        "it (`i &= 7`), with the very variable that is used",
    ),
    _known(
        "size not bounded",
        (
            rf"(?P<register>{_FEW}) unbounded memory access, use 'var &= const'",
            rf"(?P<register_>{_FEW}) min value is negative, either use unsigned or 'var &= const'",
            r"invalid zero-sized read",
            r"invalid (?:stack type R\d+|(?:indirect )?(?:access to|read from|write to) stack R\d+).* access_size=",
        ),
        "the size that is handed to a helper may be zero, negative, or larger than the memory it is for",
        "the helper would read or write beyond that memory",
        "bound it on both sides before the call: `if (size == 0 || size > sizeof(buf)) return …;`, as an unsigned "
        "number",
    ),
    _known(
        "loop without bound",
        (
            r"infinite loop detected",
            r"back-edge from insn \d+ to \d+",
            r"The sequence of \d+ jumps is too complex",
        ),
        "there is a loop of which the verifier cannot see an end",
        "a program that does not end would hold its processor for ever, in the middle of receiving a packet",
        "give it a bound that is a constant: `for (int i = 0; i < 64; i++)` with a `break` inside; or bpf_loop() "
        "(Linux 5.17). Before Linux 5.3 no loop is taken that clang does not unroll",
    ),
    _known(
        "too many instructions",
        (r"BPF program is too large", r"processed \d+ insns?.* limit", r"too many (?:instructions|states)"),
        "the verifier followed a million instructions and had not come to the end",
        "every way through the program is followed, and branches inside a loop multiply the ways",
        "move the body of the loop into bpf_loop() or a `__noinline` function that is not static, which are "
        "followed once; let loops run less often; replace branches by arithmetic or by a map",
    ),
    _known(
        "stack too large",
        (
            r"combined stack size of \d+ calls is (?P<size>\d+)",
            r"invalid (?:write to|read from)?\s?stack (?:R\d+ )?off=-(?:5[2-9]\d|51[3-9]|[6-9]\d\d|\d{4,}) size=",
            r"the call stack of \d+ frames is too deep",
        ),
        "the variables of the functions that are active at once take more than the stack has",
        "a program has 512 bytes of stack, all the functions that call one another together",
        "keep what is large in a BPF_MAP_TYPE_PERCPU_ARRAY of one entry, or make it smaller",
    ),
    _known(
        "stack offset unbounded",
        (
            r"(?:invalid )?(?:unbounded )?variable(?:-offset)? (?:read from|write to|stack (?:read|write|access))",
            r"invalid unbounded variable-offset",
            r"variable stack (?:access|read|write)",
        ),
        "an array on the stack is accessed at an index that may be any number",
        "the access could reach the variables and saved registers beside the array",
        "compare the index with the array's length first, or mask it: `room[i & 15]` for one of 16 elements",
    ),
    _known(
        "stack uninitialised",
        (
            r"invalid (?:indirect )?read from stack",
            r"invalid stack type",
        ),
        "bytes of the stack are read that nothing was ever written to",
        "they hold what an earlier call has left there, which may be a secret of the kernel (with CAP_PERFMON the "
        "kernel lets it pass since Linux 6.3)",
        "initialise the whole variable, padding too: `struct key key = {};` or __builtin_memset()",
    ),
    _known(
        "register uninitialised",
        (rf"(?P<register>{_FEW}) !read_ok",),
        "{register} is read, and on some way to this line nothing was written to it",
        "it holds what somebody else has left there; of R0 it means that the function returns nothing, of R1 to R5 "
        "that they are used after a call, which destroys them",
        "initialise the variable where it is declared, and return a value on every way",
    ),
    _known(
        "reference not released",
        (
            r"Unreleased reference id=\d+,? alloc_insn=(?P<instruction>\d+)",
            r"BPF_EXIT instruction (?:in main prog )?would lead to reference leak",
            r"(?:tail_call|BPF_LD_\[ABS\|IND\]) (?:cannot be mixed with|would lead to) (?:socket )?reference",
        ),
        "what was reserved or looked up {taken} is not given back on every way out",
        "nobody else would ever give it back: a record in a ring buffer that is not submitted blocks all behind it, a "
        "socket would never be freed",
        "give it back on every way, early returns included: {release}",
    ),
    _known(
        "wrong helper for the program",
        (
            r"program of this type cannot use helper (?P<helper>\w+)",
            r"unknown func (?P<helper_>\w+)#",
            r"calling kernel function (?P<helper__>\w+) is not allowed",
        ),
        "programs of this type may not call {helper}",
        "each type of program has a list of the helpers that are safe where it runs: those of skbs, for example, are "
        "for TC and sockets, and XDP runs before there is an skb",
        "use the helper of this hook (XDP: bpf_xdp_load_bytes, bpf_xdp_adjust_head …; TC: bpf_skb_load_bytes …), or "
        "load the program at another hook; `penstock probe` lists what each type has",
    ),
    _known(
        "wrong map for the helper",
        (r"cannot pass map_type (?P<kind>\d+) into func (?P<helper>\w+)",),
        "{helper} does not take a map of this type",
        "it relies on what only certain types of maps hold: devices, processors, programs, sockets",
        "declare the map with the type that the helper is for: bpf_redirect_map takes DEVMAP, CPUMAP and XSKMAP, "
        "bpf_tail_call PROG_ARRAY, bpf_ringbuf_reserve RINGBUF",
    ),
    _known(
        "licence missing",
        (r"cannot call GPL[- ](?:only|restricted) function",),
        "a helper is called that only programs under the GPL may call",
        "some helpers are offered to GPL-compatible programs alone, and the program does not say that it is one",
        'if it is: `char _license[] SEC("license") = "GPL";`; if not, do without that helper (bpf_printk is one)',
    ),
    _known(
        "context read-only",
        (r"invalid bpf_context access off=(?P<offset>\d+) size=(?P<size>\d+)",),
        "a field of the context is written that programs of this type may only read",
        "the context shows the kernel's own fields; a write would change these behind its back",
        "write to what may be written: at TC mark, priority, tc_index, tc_classid and cb[]; at XDP nothing of the "
        "context, the packet itself instead",
        where=r"\n\d+: \([0-9a-f]{2}\) (?:lock )?\*\(u\d+ \*\)\(r\d+ [+-]\d+\) .*\n.*invalid bpf_context access",
    ),
    _known(
        "context field forbidden",
        (r"invalid bpf_context access off=(?P<offset>\d+) size=(?P<size>\d+)",),
        "a field of the context is read that programs of this type do not have, or not in this size",
        "each type of program sees a part of its context; a socket filter, for example, has no data and data_end: "
        "the packet need not lie in one piece there",
        "read the packet by bpf_skb_load_bytes() where there is no direct access, and fields in their own size",
    ),
    _known(
        "context moved",
        (
            r"variable ctx access var_off",
            r"dereference of modified ctx ptr",
            r"R\d+ pointer arithmetic on (?:PTR_TO_)?(?:ctx|CTX)",
        ),
        "the context is read through a pointer that was moved",
        "the kernel rewrites each access to a field of the context when it loads the program, so it has to know which "
        "field it is",
        "read the field by its name from the pointer that the program was given, `ctx->field`; keep clang from moving "
        "the pointer by copying the field to a variable early",
    ),
    _known(
        "constant written",
        (
            r"write into map forbidden",
            r"R\d+ (?:cannot write into (?:rdonly|\w*rodata)\w*|cannot write into)",
        ),
        "something is written that is constant once the program is loaded",
        "`const` variables lie in a map that is frozen, which is why the verifier may take their values as known",
        "make it a plain global variable, without `const`, if the program is to change it",
    ),
    _known(
        "answer out of range",
        (r"At program exit the register R0", r"At callback return the register R0"),
        "the program may return a number that its hook does not know",
        "the hook acts on the number; programs of this type may only return those that it understands",
        "return constants of the hook, or bound the value before it is returned",
    ),
    _known(
        "unreachable code",
        (r"unreachable insn \d+",),
        "there are instructions that no way leads to",
        "code that is never reached is taken for a mistake, or for something to be jumped into",
        "remove it: usually it is inline assembly, or an object that was made without -O2",
    ),
    _known(
        "no way out",
        (
            r"last insn is not an exit or jmp",
            r"jump out of range from insn",
            r"subprog.*(?:falls|does not exit)",
        ),
        "the program's instructions end without a return",
        "what follows them in memory would be run",
        "return a value at the end of every function; clang leaves the return out behind __builtin_unreachable(), "
        "division by a constant zero and other undefined behaviour",
    ),
    _known(
        "lock held",
        (r"bpf_spin_lock is missing unlock", r"function calls are not allowed while holding a lock"),
        "a lock is held where it may not be",
        "nobody else on any processor could go on",
        "unlock on every way, and call nothing between bpf_spin_lock and bpf_spin_unlock",
    ),
    _known(
        "address leaked",
        (r"leaks addr", r"pointer \S+ pointer prohibited", r"pointer comparison prohibited"),
        "an address of the kernel would become visible to a process that may not see it",
        "who knows where the kernel's memory lies has an easier time attacking it; CAP_PERFMON says that one may",
        "load it with CAP_PERFMON or as root, or keep addresses out of maps and of arithmetic",
    ),
)
