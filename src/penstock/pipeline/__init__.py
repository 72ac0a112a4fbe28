"""The one place that joins compiler and kernel.

policy     text -> a compiled policy, or its diagnostics
attach     a filter that lasts as long as a block of Python
apply      a filter that outlives the command; replace, detach
status     what is in place
emergency  rules for a time, before a running policy
slot         the pins behind `apply`, and how a change survives a kill
whereabouts  which pins belong to which interface, whatever becomes of its name
identity, counters, built     what a filter says of itself, what it has counted, a policy as a file
"""

from penstock.pipeline.apply import Applied, Detached, apply, detach
from penstock.pipeline.attach import Attached, attach
from penstock.pipeline.counters import Counter
from penstock.pipeline.policy import LoadedPolicy, check_text, load_policy
from penstock.pipeline.status import Status, status

__all__ = [
    "Applied",
    "Attached",
    "Counter",
    "Detached",
    "LoadedPolicy",
    "Status",
    "apply",
    "attach",
    "check_text",
    "detach",
    "load_policy",
    "status",
]
