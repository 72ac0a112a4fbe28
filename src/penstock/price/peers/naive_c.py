"""A policy as the C that one writes first: parse the five-tuple, then one `if` a rule.

In: plain rules.  Out: C for `compile_c`.  It reads untagged IPv4 and IPv6
without extension headers, counts nothing and judges no packet malformed: less
than the policy's program does, and linear in the rules.

    drop if udp dst port 53    ->    if (k->proto == 17 && k->dport == 53) return 1;
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from penstock.model.hook import TRAITS, Hook
from penstock.model.net import IntervalSet
from penstock.model.verdict import Verdict
from penstock.price.peers.clauses import (
    ANY_PROTOCOL,
    CannotSayError,
    Clause,
    PlainRule,
    Refusal,
    UnsayableError,
)

#: More comparisons than this are made with memory: the verifier remembers what a register was compared with.
IN_REGISTERS = 48
#: More rules than this take clang minutes, and the verifier refuses the result.
MOST_RULES = 2_000

_CODES = TRAITS[Hook.XDP].codes
_NAMES = {
    "sport": "sport",
    "dport": "dport",
    "addr.src": "src",
    "addr.dst": "dst",
    "ttl": "ttl",
    "tcp.flags": "flags",
}
_WIDE = {"ip6.src": "src6", "ip6.dst": "dst6"}

_FRAME = """\
#include <penstock/uapi.bpf.h>

struct key {
	__u64 src6_hi, src6_lo, dst6_hi, dst6_lo;
	__u32 src, dst, family, proto, sport, dport, ttl, flags;
};

static __always_inline void ports(struct key *k, __u8 *l4, void *end)
{
	if (k->proto != 6 && k->proto != 17 && k->proto != 132)
		return;
	if ((void *)(l4 + 4) <= end) {
		k->sport = ps_ntohs(*(__be16 *)l4);
		k->dport = ps_ntohs(*(__be16 *)(l4 + 2));
	}
	if (k->proto == 6 && (void *)(l4 + 14) <= end)
		k->flags = l4[13];
}

static __always_inline int parse(struct xdp_md *ctx, struct key *k)
{
	__u8 *ip = (__u8 *)(long)ctx->data + 14;
	void *end = (void *)(long)ctx->data_end;
	__be16 type;

	if ((void *)ip > end)
		return 0;
	type = *(__be16 *)(ip - 2);
	if (type == ps_htons(0x0800) && (void *)(ip + 20) <= end) {
		k->family = 4;
		k->proto = ip[9];
		k->ttl = ip[8];
		k->src = ps_ntohl(*(__be32 *)(ip + 12));
		k->dst = ps_ntohl(*(__be32 *)(ip + 16));
		ports(k, ip + 20, end);
	} else if (type == ps_htons(0x86dd) && (void *)(ip + 40) <= end) {
		k->family = 6;
		k->proto = ip[6];
		k->ttl = ip[7];
		k->src6_hi = ps_ntohll(*(__be64 *)(ip + 8));
		k->src6_lo = ps_ntohll(*(__be64 *)(ip + 16));
		k->dst6_hi = ps_ntohll(*(__be64 *)(ip + 24));
		k->dst6_lo = ps_ntohll(*(__be64 *)(ip + 32));
		ports(k, ip + 40, end);
	} else {
		return 0;
	}
	return 1;
}

static struct key ps_key;

SEC("xdp.frags") int naive(struct xdp_md *ctx)
{
	%(key)s

	if (!parse(ctx, parsed))
		return %(default)d;
%(rules)s
	return %(default)d;
}

char _license[] SEC("license") = "Dual BSD/GPL";
"""

_IN_REGISTERS = "struct key parsed_key = {}, *parsed = &parsed_key; const struct key *k = parsed;"
#: One for all processors, which is enough to be measured with; what is read from it the verifier takes for unknown.
_IN_MEMORY = "struct key *parsed = &ps_key; const volatile struct key *k = parsed; *parsed = (struct key){};"


def source(rules: Sequence[PlainRule], default: Verdict) -> str:
    """The whole program.

    Raises:
        CannotSayError: naming the rules that ask for more than addresses, protocol, ports, TTL and TCP flags.
    """
    lines, refused = list[str](), []
    if len(rules) > MOST_RULES:
        one = rules[MOST_RULES]
        raise CannotSayError(
            [Refusal(one.name, one.line, f"is beyond the {MOST_RULES} that one `if` each can have")]
        )
    for rule in rules:
        try:
            lines += list(_lines(rule))
        except UnsayableError as error:
            refused.append(Refusal(rule.name, rule.line, str(error)))
    if default is Verdict.BOUNCE:
        refused.append(
            Refusal("default", 1, "sends packets back, for which this C would have to swap addresses")
        )
    if refused:
        raise CannotSayError(refused)
    compares = sum(line.count("&&") + line.count("||") + 1 for line in lines)
    return _FRAME % {
        "key": _IN_REGISTERS if compares <= IN_REGISTERS else _IN_MEMORY,
        "default": _CODES[default],
        "rules": "\n".join(lines),
    }


def _lines(rule: PlainRule) -> Iterator[str]:
    if rule.action is Verdict.BOUNCE:
        raise UnsayableError("sends packets back, for which this C would have to swap their addresses")
    if not isinstance(rule.action, Verdict):
        raise UnsayableError(f"is a {rule.action.value} rule; this C counts nothing")
    for clause in rule.clauses:
        tests = list(_tests(clause))
        yield f"\tif ({' && '.join(tests) or '1'})\n\t\treturn {_CODES[rule.action]};"


def _tests(clause: Clause) -> Iterator[str]:
    if len(clause.families) == 1:
        yield f"k->family == {next(iter(clause.families))}"
    if clause.protocols != ANY_PROTOCOL:
        yield _within("proto", clause.protocols)
    for name, values in clause.tests:
        if name in _WIDE:
            yield _either([_wide(_WIDE[name], low, high) for low, high in values])
        elif name in _NAMES:
            yield _within(_NAMES[name], values)
        else:
            raise UnsayableError(f"asks for {name}, which is not in the five-tuple")


def _within(name: str, values: IntervalSet) -> str:
    return _either(
        [
            f"k->{name} == {low}u" if low == high else f"k->{name} - {low}u <= {high - low}u"
            for low, high in values
        ]
    )


def _wide(name: str, low: int, high: int) -> str:
    """A prefix, or any range, over two halves."""
    span = low ^ high
    if span & (span + 1) == 0 and low & span == 0:
        masks = ~span & ((1 << 128) - 1)
        parts = [
            f"(k->{name}_{half} & 0x{mask:x}ULL) == 0x{value:x}ULL"
            for half, mask, value in (
                ("hi", masks >> 64, low >> 64),
                ("lo", masks & (1 << 64) - 1, low & (1 << 64) - 1),
            )
            if mask
        ]
        return f"({' && '.join(parts) or '1'})"
    raise UnsayableError("asks for a range of IPv6 addresses that is no prefix")


def _either(tests: Sequence[str]) -> str:
    return tests[0] if len(tests) == 1 else f"({' || '.join(tests)})"
