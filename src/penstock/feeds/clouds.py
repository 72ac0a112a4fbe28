"""Address ranges of clouds: AWS, Google, Azure.  (Cloudflare's are plain lists.)

    {"prefixes":[{"ip_prefix":"192.0.2.0/24",…}],"ipv6_prefixes":[{"ipv6_prefix":"2001:db8::/32",…}]}
    {"prefixes":[{"ipv4Prefix":"192.0.2.0/24"},{"ipv6Prefix":"2001:db8::/32"}]}
    {"values":[{"properties":{"addressPrefixes":["192.0.2.0/24","2001:db8::/32"]}}]}

The same prefix occurs under several services.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from penstock.feeds.gather import Gather, decoded
from penstock.feeds.result import Parsed


class _Range4(msgspec.Struct, gc=False):
    ip_prefix: object = None


class _Range6(msgspec.Struct, gc=False):
    ipv6_prefix: object = None


class _Aws(msgspec.Struct):
    prefixes: list[_Range4]
    ipv6_prefixes: list[_Range6] = []


class _GoogleRange(msgspec.Struct, gc=False, rename={"v4": "ipv4Prefix", "v6": "ipv6Prefix"}):
    v4: object = None
    v6: object = None


class _Google(msgspec.Struct):
    prefixes: list[_GoogleRange]


class _Properties(msgspec.Struct, rename={"prefixes": "addressPrefixes"}):
    prefixes: list[object] = []


class _Service(msgspec.Struct):
    properties: _Properties


class _Azure(msgspec.Struct):
    values: list[_Service]


def parse_aws(data: bytes) -> Parsed:
    """The prefixes of ip-ranges.json."""
    ranges = decoded(data, _Aws)
    v6 = (one.ipv6_prefix for one in ranges.ipv6_prefixes)
    return _parsed([*(one.ip_prefix for one in ranges.prefixes), *v6])


def parse_gcp(data: bytes) -> Parsed:
    """The prefixes of cloud.json or goog.json."""
    return _parsed(one.v6 if one.v4 is None else one.v4 for one in decoded(data, _Google).prefixes)


def parse_azure(data: bytes) -> Parsed:
    """The prefixes of a ServiceTags file."""
    return _parsed(
        prefix for service in decoded(data, _Azure).values for prefix in service.properties.prefixes
    )


def _parsed(values: Iterable[object]) -> Parsed:
    entries = Gather()
    for number, value in enumerate(values, 1):
        entries.add(value, number)
    return entries.parsed()
