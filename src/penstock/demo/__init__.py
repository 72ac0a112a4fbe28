"""`penstock demo`: a filter at work between two network namespaces of its own, or on a capture it generates.

world      two namespaces and a veth pair, removed whatever happens
traffic    a UDP echo server and clients in them
scenes     the story: traffic, the policy comes, a rule changes, the policy goes
rehearsal  the same without privilege: the reference engine over a capture
"""
