"""Run policies and expressions on packets that are not on a wire.

policy     an `Engine` gives a filter's outcome for a frame: reference, kernel
matching   a `Matcher` counts the frames that expressions match: reference, kernel, libpcap
trials     a policy's test blocks, and policies on captures
why        which rule decides a packet, and what kept the rules before it from matching
"""
