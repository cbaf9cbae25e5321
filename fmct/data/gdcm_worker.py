"""The process in which GDCM decodes: frames come in on standard input, pixels go out on standard output.

A request is a line of JSON (`syntax`, `rows`, `columns`, `bits`, `bytes`) followed by so many bytes; an answer is a
line of JSON (`bytes`, or `error`) followed by so many. The process ends with its input. See `gdcm_decoding` for why.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, BinaryIO

MOST_MEMORY_BYTES = 4 << 30


def main() -> None:
    """Answer requests until there are no more."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_WRONLY)  # decoders print what they make of a broken stream
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    limit_memory()
    for line in requests:
        request = json.loads(line)
        answer(request, requests.read(request["bytes"]), answers)


def limit_memory() -> None:
    """Let a decoder that asks for unreasonable memory fail rather than take the machine down."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    except (ImportError, ValueError, OSError):
        return  # not every system has such limits; sizes have been checked before


def answer(request: dict[str, Any], stream: bytes, answers: BinaryIO) -> None:
    """Decode one frame and write what came of it."""
    try:
        pixels = decoded(stream, **{key: request[key] for key in ("syntax", "rows", "columns", "bits")})
    except Exception as error:  # noqa: BLE001 - whatever the decoder raises is for the other process to tell
        answers.write(json.dumps({"error": type(error).__name__}).encode() + b"\n")
    else:
        answers.write(json.dumps({"bytes": len(pixels)}).encode() + b"\n" + pixels)
    answers.flush()


def decoded(stream: bytes, syntax: str, rows: int, columns: int, bits: int) -> bytes:
    """Decode one gray frame with GDCM.

    Args:
        stream: JPEG or JPEG-LS.
        syntax: UID of the transfer syntax that fits the stream.
        rows: height.
        columns: width.
        bits: the stream's precision, 2 to 16.

    Returns:
        The pixels as little-endian unsigned integers of 8 or, above 8 bits, 16 bits.

    Raises:
        ValueError: when GDCM gives nothing or another number of bytes.
    """
    import gdcm

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(stream)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetDataElement(element)
    gray = gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2"))
    image.SetPhotometricInterpretation(gray)
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    container = 8 if bits <= 8 else 16
    image.SetPixelFormat(gdcm.PixelFormat(1, container, bits, bits - 1, 0))
    pixels: bytes = image.GetBuffer().encode("utf-8", "surrogateescape")  # GDCM hands bytes out as a str
    if len(pixels) != rows * columns * container // 8:
        raise ValueError("another size")
    return pixels


if __name__ == "__main__":
    main()
