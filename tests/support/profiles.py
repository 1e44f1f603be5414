"""ICC profiles."""

import struct

from scsnet.pictures.exif import srgb_profile


def make_swapped_profile():
    """sRGB whose red is our green."""
    profile = bytearray(srgb_profile())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    name = profile.index("sRGB".encode("utf-16-be"))
    profile[name : name + 8] = "swap".encode("utf-16-be")
    return bytes(profile)


def make_gray_profile(gamma):
    """Gray of a plain gamma: a header, a table of two tags, their values."""
    white = struct.pack(">3i", 63190, 65536, 54061)  # D50
    header = struct.pack(
        ">I4sI12s12x4s28x12s", 192, b"lcms", 0x02400000, b"mntrGRAYXYZ ", b"acsp", white
    )
    table = struct.pack(">I4s2I4s2I", 2, b"kTRC", 156, 14, b"wtpt", 172, 20)
    curve = struct.pack(">4s4xIH2x", b"curv", 1, round(gamma * 256))
    return header.ljust(128, b"\0") + table + curve + b"XYZ " + bytes(4) + white
