"""What docs/performance.md says around its tables."""

INTRODUCTION = """\
# Performance

Written by `make bench` from measurements on one machine ({minutes} minutes); run it on yours, or `python -m bench
--quick` for two minutes' worth. The samples are in [`bench/results`](../bench/results), and the page and its plots
can be made again from them: `python -m bench --redraw`. Machine: {cpu}, {cpus} processors, Linux {kernel}, {clang},
Python {python}.

## How it is measured, and what the figures mean

**The unit** is nanoseconds of the measuring thread's CPU time a packet, *above an empty program* that was measured
in the same rounds. The empty program is the cost of being called, which differs between kernels and which no filter
can avoid.

**Different packets.** `BPF_PROG_TEST_RUN` runs a program on one frame again and again, which flatters caches and
branch predictors. So a [feeder](../bench/hand/feeder.bpf.c) is what the kernel runs: it writes the headers of the
next of 65,536 frames over the test run's frame and goes on to the policy's program by a tail call. The policy's
program is the one that `penstock apply` would attach, byte for byte: it parses, decides, counts. The empty program
behind the same feeder is subtracted, the feeder's own cost and the fetching of one cache line a packet with it.
Other ways were worse: a frame a call costs a system call, a hundred times the filter; frames over veth cost a
network stack. *warm* is one frame again and again, for comparison.

**Traffic.** Packets are drawn from inside the rules: *uniform*, every rule as likely as any other, which is the
worst for caches; *Zipf*, rule k of a random order with a share of 1/k. 30 % lie in the corners of a rule, 12 % have
fields of another rule, 3 % are anything.

**Right before quick.** Before it is timed every program is given every frame, 65,536 of each kind of traffic, and
its action code is read back from the kernel; then its counters, so that each rule is known to have decided as many
packets as it should. Linear search in numpy, which shares no code with the compiler, says what is right. One wrong
answer ends the run. (Programs by hand are checked on fewer frames.)

**A processor of its own.** All but the frames over veth runs on one processor at the highest priority, timed rounds at
real-time priority, so that other work waits or goes to other processors.

**Rounds.** In a round every program of a table's row has its turn, of some milliseconds and up to 65,536 packets; a
quarter as many go before it untimed, since the caches hold what the program before it left there. The figure is the
median over the rounds of the difference within a round. What disturbs the machine disturbs all alike. Several seeds
make several rule sets: the median stands there, with the least and the largest in brackets.

**Compare within a row or by ratio**, never across versions of this page or machines.
"""
NOISE = """\
**Noise.** The middle half of the rounds lies within {within} of a figure in the median and within {worst} at worst.
Where a program comes to lie in memory moves it too: the same small program loaded anew differed by {between} ns in
the median, so ratios of two figures of a few nanoseconds are no better than that. The processor is shared with
other work: load averages when the tables were begun were {loads}, and whatever runs beside takes part of the
caches, which large tables feel most.
"""
SCALE = """\
Sets of our own generator (`bench/rulesets.py`) with the statistics that ClassBench published: `acl`, `fw`, `ipc`.
From policy text through the compiler to the loaded program; each rule has its own counter, as always. *Loop in C*
tries the same rules in an array one after the other ([`linear.bpf.c`](../bench/hand/linear.bpf.c)); *ifs in C* is
what one writes first, each rule with its constants, up to the hundred rules that the verifier takes.

Compiling is timed by the clock, step by step: *front* is from the text to checked rules, *decide* to C and tables;
*CPU* is what all steps took of a processor, which is the figure to go by where the machine had other work. *Peak* is
the compiling process at its largest, clang's apart; *maps* are all of the program's, tables and counters for each
processor among them.
"""
FAMILIES = """\
The same flavours with IPv6 addresses, and policies of which every other rule and every other packet is IPv6's.
Uniform traffic.
"""
EXACT = """\
Rules that test both addresses, both ports and the protocol for equality, all different: a BPF hash with the
five-tuple for a key ([`hash.bpf.c`](../bench/hand/hash.bpf.c)) can say them, and nothing else. In *none matches*
every packet is a stranger's.
"""
SMALL = """\
Five-tuple rules, and the same as ifs in C with the same counters; *warm* is the fairest case for both. The C neither
checks that packets are well-formed nor steps over VLAN tags, both of which penstock does.
"""
TWENTY = """\
[`bench/hand/twenty.policy`](../bench/hand/twenty.policy) has twenty rules of the kinds that servers have;
[`twenty.hand.bpf.c`](../bench/hand/twenty.hand.bpf.c) is what one would write with care, divided by protocol, ports in
a switch. It takes no jumbo frames and does not look for malformed packets. A warm packet.
"""
USUAL = """\
[`examples/dns.policy`](../examples/dns.policy) against two programs in C that do the same for the usual packet:
[`examples/dns.hand.bpf.c`](../examples/dns.hand.bpf.c), which takes jumbo frames as penstock does and asks a helper
for the length, and [`bench/hand/dns_linear.bpf.c`](../bench/hand/dns_linear.bpf.c), which does without them.
Neither checks that the packet is well-formed, which penstock does: it compares the lengths in the IP, TCP and UDP
headers with each other and counts packets that contradict themselves. Each program is loaded several times and the
medians of the loads stand here; a warm packet.

The last rows are packets that the fast path does not take and the exact parser does.
"""
HOOKS = """\
dns.policy and twenty.policy once more, at TC ingress and at a socket, above an empty program of that hook. The programs
by hand are those of the tables before, compiled for the hook. *As on the wire*: a tag that lies beside the packet and
the segments of an aggregate are counted, as penstock does; asking whether they are there costs every packet. At a
socket nothing can be read directly: a helper copies the headers, 24 or 44 bytes by hand, up to 96 by penstock, which
also looks for the Ethernet header in front of what the socket gets. A warm packet.
"""
ACTIONS = """\
A policy of one rule, `ACTION if dst port 53`, on a packet that the rule takes. Each run is a system call of its own,
since a refused packet is no longer the same: so caches are less warm than elsewhere on this page, and `drop` is what to
compare with. Refusals are not limited here, as they are otherwise; what `redirect` costs is the decision, and what
`mirror` costs is the copy and its way to a device without a carrier. What comes behind the hook is not in it: the
stack, which need not run for a packet that was dropped, or a driver that sends.
"""
SAVED = """\
[`bench/data`](../bench/data) has rule sets as `iptables-save` prints them, in the shapes that ufw, fail2ban, Docker
and a program that writes routers' rules give them; their content is made up. A reader translates a chain into a
policy; what needs state or knows what XDP cannot know is left out and listed, and `REJECT` becomes `drop`
(*changed*). What every packet must come to is found by walking the chains as netfilter does, not by reading the
policy.
"""
CLASSIFIER = """\
The tables' lookups alone (`python -m bench.classifier`): fields come from an array instead of a packet, nothing is
parsed and nothing counted. It is the figure to hold against papers about classifiers; the table further up is what
a packet pays. Medians of the seeds; of *both*, so many rules of either family.
"""
OVERLAY = """\
`penstock rule add` on a policy of access lists that runs (`python -m bench.overlay`): milliseconds by the clock until
packets meet the rule, and until the command is done, which waits for packets under way. Nothing is compiled: the
rule goes to a list of at most 64 records beside the tables. The last columns are what such a list adds to a packet,
empty and with records that do not fit, above the same program without a list.
"""
WIRE = """\
Frames of 74 bytes go over a veth pair through each filter; sender and receiver share one processor on purpose,
since on two a full ring makes the receiver dear and the figure means nothing. As multiples of an XDP program that
drops everything, sending and receiving included; the last row has what that one costs. 1,024 different frames in
turn, 128 of them for 10,000 rules; before it is timed each filter has to let through exactly the packets that the
reference evaluator passes.
"""
LOADING = """\
Milliseconds by the clock from the policy's text to a program on an interface, of the quickest of several runs;
five-tuple rules. Starting Python is not in it. Nearly all of a small policy's time is clang's.
"""
