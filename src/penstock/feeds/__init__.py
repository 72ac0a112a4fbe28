"""Threat feeds: from a source's bytes to prefixes that may be trusted with a set.

    fetch ──▶ unpack ──▶ parse ──▶ outside ──▶ judge ──▶ around ──▶ store
    bytes     bytes      Parsed    Listed      reasons   Listed     last good copy

Pure: `lines` and `addresses` (the plain list), one module for each other format with `formats`
naming them, `unpack`, `protected`, `judge`, `presets`, `schedule`.  With the world: `sources` and
`fetch` (URLs, files, commands), `store` (the copies on disk); `refresh` calls all of these in order.

Nothing here needs a kernel or privilege, and nothing here changes a set: `pipeline/feeding.py` does.
"""
