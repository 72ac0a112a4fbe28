"""The checksums that packets carry: the internet checksum (RFC 1071) and CRC32c (RFC 9260, appendix A).

>>> hex(internet_checksum(bytes.fromhex("00010203")))
'0xfdfb'
>>> hex(crc32c(b"123456789"))
'0xe3069283'
"""

from __future__ import annotations


def internet_checksum(data: bytes) -> int:
    """The complement of the ones' complement sum of `data`'s 16-bit words, as it stands in a header.

    The ones' complement sum is the value modulo 0xffff, except that only data
    of nothing but zeros has the sum 0 (RFC 1071, section 2).
    """
    padded = data + b"\0" if len(data) % 2 else data
    number = int.from_bytes(padded, "big")
    total = number % 0xFFFF
    return 0 if total == 0 and number else 0xFFFF - total


def _crc32c_entry(index: int) -> int:
    for _ in range(8):
        index = (index >> 1) ^ 0x82F63B78 if index & 1 else index >> 1
    return index


_CRC32C = tuple(_crc32c_entry(index) for index in range(256))


def crc32c(data: bytes) -> int:
    """The CRC32c of `data`; SCTP stores it least significant byte first."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC32C[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
