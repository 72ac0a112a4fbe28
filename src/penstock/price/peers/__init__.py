"""The same rules in other filters, and what they cost on the same wire.

clauses     a rule set in terms that other filters have too
nft         … as nftables rules
iptables    … as iptables rules and ipset lists
xdp_filter  … as xdp-filter's lists
naive_c     … as the C that one writes first
tools       start those programs
wire        a veth pair that carries real frames through a filter
compare     all of them side by side
"""

from penstock.price.peers.compare import Comparison, LeftOut, PeerPrice, compare

__all__ = ["Comparison", "LeftOut", "PeerPrice", "compare"]
