"""What a policy costs: nanoseconds a packet, instructions, load time.

traffic     named frames to measure with
stopwatch   several programs side by side, round by round
report      a policy beside an empty program and one written by hand
"""

from penstock.price.report import Price, TrafficPrice, price

__all__ = ["Price", "TrafficPrice", "price"]
