"""What a policy costs: nanoseconds a packet, instructions, the verifier's effort, memory, load time.

traffic     classes of packets to measure with
draw        packets drawn from the policy's own rules
decide      what the policy does with many packets
stopwatch   several programs side by side, round by round, warm and cold
feed        … met by many different packets in turn
figures     what a program is before it meets a packet
report      a policy beside an empty program and one written by hand
rules       what each rule adds
budget      what a policy may cost, and which rule is too much
peers       the same rules in other filters
"""

from penstock.price.report import Price, TrafficPrice, price

__all__ = ["Price", "TrafficPrice", "price"]
