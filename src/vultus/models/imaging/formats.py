"""Names of the formats that are not read, by how their files begin: whoever sends one is told what it is."""

from __future__ import annotations

from vultus.errors import NotAnImageError, UnsupportedImageError

READ_FORMATS = "JPEG, PNG, WebP, HEIC or AVIF"

SIGNATURES = (
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (8, b"CR\x02", "Canon CR2"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "BigTIFF"),
    (0, b"MM\0+", "BigTIFF"),
    (0, b"IIU\0", "Panasonic RW2"),
    (0, b"IIRO", "Olympus ORF"),
    (0, b"IIRS", "Olympus ORF"),
    (0, b"MMOR", "Olympus ORF"),
    (0, b"FUJIFILMCCD-RAW", "Fujifilm RAF"),
    (0, b"FOVb", "Sigma X3F"),
    (0, b"\0MRM", "Minolta MRW"),
    (0, b"II\xbc", "JPEG XR"),
    (4, b"ftypcrx ", "Canon CR3"),
    (4, b"JXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"jP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"qoif", "QOI"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"\0\0\2\0\0\0\0\0", "TGA"),
    (0, b"\0\0\n\0\0\0\0\0", "TGA"),
    (0, b"\0\0\2\0", "CUR"),
    (0, b"DDS ", "DDS"),
    (0, b"\x01\xda", "SGI"),
    (0, b"\x0a\x05\x01", "PCX"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"FLIF", "FLIF"),
    (0, b"BPG\xfb", "BPG"),
    (0, b"\x8aMNG", "MNG"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS"),
    (0, b"%!PS", "PostScript"),
    (0, b"%PDF", "PDF"),
    (0, b"<svg", "SVG"),
    (0, b"\x1a\x45\xdf\xa3", "Matroska or WebM video"),
    (8, b"AVI ", "AVI video"),
    (4, b"ftypM4A", "MPEG-4 audio"),
    (4, b"ftyp", "video"),
    (4, b"moov", "QuickTime video"),
    (4, b"mdat", "QuickTime video"),
)

NETPBM = {b"P1": "PBM", b"P2": "PGM", b"P3": "PPM", b"P4": "PBM", b"P5": "PGM", b"P6": "PPM", b"P7": "PAM"}

TEXTS = (
    (b"data:image/", "The file is a data URL, not a photo: send the bytes that it encodes in Base64."),
    (b"/9j/", "The file is a photo in Base64: decode it and send the bytes."),
    (b"ivborw0kggo", "The file is a photo in Base64: decode it and send the bytes."),
    (
        b"<!doctype html",
        "The file is an HTML page, not a photo: its address may have answered with an error.",
    ),
    (b"<html", "The file is an HTML page, not a photo: its address may have answered with an error."),
    (b"version https://git-lfs", "The file is a pointer of Git LFS, not the photo: fetch it with git lfs pull."),
)


def build_refusal(content: bytes) -> NotAnImageError | UnsupportedImageError:
    """Return the error for bytes that are no photo of a format that is read; a format's name is its fact `format`."""
    if not content:
        return NotAnImageError("The file is empty.")
    name = next((name for at, signature, name in SIGNATURES if content.startswith(signature, at)), None)
    if content[2:3] in b"\t\n\r #" and len(content) > 2:
        name = NETPBM.get(content[:2], name)
    if name is not None:
        return UnsupportedImageError(f"{name} files are not read; send {READ_FORMATS}.", format=name)
    if b"<svg" in content[:1000]:
        return UnsupportedImageError(f"SVG files are not read; send {READ_FORMATS}.", format="SVG")
    beginning = content[:100].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for words, sentence in TEXTS:
        if beginning.startswith(words):
            return NotAnImageError(sentence)
    return NotAnImageError(f"The file is not an image; send {READ_FORMATS}.")
