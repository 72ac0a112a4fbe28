"""Rules as classic BPF: what `setsockopt(SO_ATTACH_FILTER)`, iptables and tcpdump take, without any privilege.

    compile_classic(rules, Start.FRAME).instructions    ->  what the kernel runs
    cannot_say(rules, Start.FRAME)                      ->  what must be left out, rule by rule

A classic program has two registers, sixteen words of memory, no loops and one
answer: how many bytes of the packet to keep.  Modules, in the order of the text
they make: `start` (where a socket's packet begins), `assemble` (labels and far
jumps), `packet` (guarded loads), `headers` (what is parsed once), `conditions`
(odd packets), `values` and `test` (rules), `generate` (the whole), `listing`.
"""
