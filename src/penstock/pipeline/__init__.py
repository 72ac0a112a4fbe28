"""The one place that joins compiler and kernel.

policy     text -> a compiled policy, or its diagnostics
attach     a filter that lasts as long as a block of Python
apply      a filter that outlives the command; replace, detach
status     what is in place
emergency  rules for a time, before a running policy
rules      rules added to a running policy
overlaid, overlay, added    how both are put in force: beside the tables, or compiled in
slot         the pins behind `apply`, and how a change survives a kill
whereabouts  which pins belong to which interface, whatever becomes of its name
identity, counters, built     what a filter says of itself, what it has counted, a policy as a file

Nothing is imported here: who asks for a policy's diagnostics should not wait for
the kernel's side, and `apply`, `attach` and `status` are modules as well as functions.
The public names are those of `penstock` itself.
"""
