"""How other processes talk to the daemon: messages, a client, and the plumbing of a server.

Nothing here knows what a policy or a set is made of: no kernel, no numpy.
`client` imports next to nothing, so that a command which asks the daemon starts quickly.
"""
