"""The words of docs/performance.md about sets and rates."""

from __future__ import annotations

SETS = """\
Whole processes, by the clock: `penstock set replace`, `ipset restore` and `nft -f` of the same list into an empty set
(*load*), a hundredth of it exchanged for other entries (*update*: all are told just what goes and what comes, by
`penstock set update`; nft is given the whole list of networks, since what it has merged cannot be taken out again), a
hundredth added (`penstock set import`), one entry, and at last the whole list put in the place of what is there, in
one step (*replace*: penstock finds out what differs, ipset fills another set and swaps them). In brackets the seconds
of processors. Networks are flat, in nft intervals (`auto-merge`), up to 100,000 of them: a million takes minutes and
a gigabyte. *By its daemon* are the same commands while a daemon runs, which has the set open (what is 100,000 lines
or more the command does itself all the same; the daemon's processor time is not in brackets). *In Python* no process
is started: a program that has the set open calls `exchange` or `update` of `penstock.open_set(…)` with lists of texts,
ledger and all. Starting Python is in penstock's other figures: it is most of *add one*, and half of what a hundredth
takes by the daemon; nft has added one when Python has only started. *Bytes an entry* is by how much the kernel's own
memory has grown behind loading, the most of the turns: what a hash takes when it is made (docs/sets.md) is not in it.
"""
SETS_INSIDE = """\
In a process that has the set open: a single entry added, or removed, until the next packet is dropped, or passes (each
change is checked with a packet). *Reopening* is what a policy that is applied again does with its set: entries are not
looked at.
"""
HASHES = """\
`drop if src in @s` of a set of addresses beside the same in C with a BPF hash
([`set.bpf.c`](../bench/hand/set.bpf.c)); both count what they drop and pass. The C knows neither IPv6 nor ARP nor VLAN
tags, and its entries neither expire nor change as a whole; it asks the very same map. Between two packets lie 512
instructions that do nothing, in the place of a driver's, which are in the empty program's cost as well. *Close* are the
same packets without these. While a processor waits for memory it goes on with what comes next, and of a program that
is short enough the next packet's search is begun by then: so random misses in a large set are cheaper by hand there,
by as much as 25 instructions more that do nothing would take away again.
"""
BANS = """\
A thousand single adds through the daemon, as fail2ban asks for them, each answered before the next: over one
connection, and over a connection each. The entry is in the ledger on disk and in the kernel then.
"""
LOOKUPS = """\
`drop if src in @s` of random networks with the lengths of blocklists, above an empty program: over 2<sup>20</sup>
different random sources, or over 1,000 in turn. *random* ones come from anywhere; a *hit* lies in a network of the
set, a *miss* in none. The packets are written by a program in the kernel, so that no system call is in it; each turn
meets packets like them before the clock runs, so that it does not begin with what the other left in the caches.
"""
SETS_WIRE = """\
As the frames over veth above, from 2<sup>20</sup> random sources: nanoseconds a packet, sending and receiving included.
The set is asked by penstock at XDP, by iptables with ipset in raw PREROUTING (`hash:ip`, `hash:net`), and by nft at
netdev ingress (a hash, or intervals up to as many as it takes in a few seconds). Each filter has to let through exactly
the packets that are in no set: a hit is dropped, a miss goes up the stack.
"""
RATES = """\
`drop if over 1000/s per src` above an empty program, beside a token bucket in an LRU hash as one writes it by hand
(`bench/rates.py`). The one by hand is under no lock: two processors may pay with one token.
"""
BETWEEN = """\
Five-tuple rules without and with `drop if src in @s`, and a rate, in their middle: nanoseconds a packet of the whole
program. What is asked in between must not take the rules around it out of their tables.
"""
