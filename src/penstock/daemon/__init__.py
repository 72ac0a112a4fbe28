"""The process that keeps the kernel as the settings say.

It may die at any moment: what it has put in place is pinned and filters on, and
the next one takes it over.  Decisions are pure (`settings`, `policies`,
`reconcile`); what touches the kernel runs in threads (`keep`, `sets`), so that the
sockets stay live.
"""
