"""Names of the formats that are not read, by how their files begin: whoever sends one is told what it is."""

from __future__ import annotations

import base64

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
    (0, b"gimp xcf", "GIMP"),
    (0, b"icns", "ICNS"),
    (0, b"AT&TFORM", "DjVu"),
    (0, b"\xd7\xcd\xc6\x9a", "WMF"),
    (40, b" EMF", "EMF"),
    (128, b"DICM", "DICOM"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"/* XPM */", "XPM"),
    (0, b"\x8bJNG", "JNG"),
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
    (4, b"wide", "QuickTime video"),
    (0, b"FLV\1", "Flash video"),
)

NETPBM = {b"P1": "PBM", b"P2": "PGM", b"P3": "PPM", b"P4": "PBM", b"P5": "PGM", b"P6": "PPM", b"P7": "PAM"}

NOT_IMAGES = (
    (0, b"PK\3\4", "a ZIP archive, or a document that is one"),
    (0, b"PK\5\6", "an empty ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ", "an xz archive"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (0, b"7z\xbc\xaf", "a 7z archive"),
    (0, b"Rar!", "a RAR archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\xd0\xcf\x11\xe0", "a document of old Office programs, or Thumbs.db"),
    (0, b"\0\5\x16\7", "an AppleDouble file, in which macOS keeps what belongs to another one"),
    (0, b"bplist", "a property list, perhaps of a photo that is in iCloud and not on this device"),
    (0, b"ID3", "MP3 audio"),
    (8, b"WAVE", "WAV audio"),
    (0, b"MZ", "a program for Windows"),
    (0, b"\x7fELF", "a program for Linux"),
    (0, b"SQLite format 3", "an SQLite database"),
)
"""What has photos inside or lies beside them, by how it begins."""

HTML = "The file is an HTML page, not a photo: its address may have answered with an error."
BASE64 = "The file is a photo in Base64: decode it and send the bytes."
DECODED = "The file was a photo before its bytes were read as text, which destroys them: read and send them as bytes."
LINE_ENDS = "The line ends of the PNG file were changed, as by a transfer as text: transfer it as binary data."
TEXTS = (
    (b"data:", "The file is a data URL, not a photo: send the bytes that it encodes in Base64."),
    (b"<!doctype html", HTML),
    (b"<html", HTML),
    (b"<?xml", "The file is XML, not a photo: its address may have answered with an error."),
    (b"{", "The file is a text, perhaps JSON, not a photo: its address may have answered with an error."),
    (b"version https://git-lfs", "The file is a pointer of Git LFS, not the photo: fetch it with git lfs pull."),
    (b"\xef\xbf\xbd" * 3, DECODED),  # JPEG, its bytes replaced because they are no UTF-8
    (b"\xef\xbf\xbdpng", DECODED),
    (b"\xc3\xbf\xc3\x98\xc3\xbf", DECODED),  # JPEG, from Latin-1 to UTF-8
    (b"\xc2\x89png", DECODED),
    (b"\x89png\n", LINE_ENDS),
    (b"\x89png\r\r", LINE_ENDS),
    (b"b'\\x", "The file is a text in which Python shows bytes: send the bytes."),
)

PHOTO_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
SEARCHED_BYTES = 4096
"""At the beginning of a file, for a photo before which something else was put."""


def build_refusal(content: bytes) -> NotAnImageError | UnsupportedImageError:
    """Return the error for bytes that are no photo of a format that is read; a format's name is its fact `format`."""
    if not content.strip(b"\0"):
        return NotAnImageError(
            "The file holds zeros alone: copying or downloading it has failed." if content else "The file is empty."
        )
    name = next((name for at, signature, name in SIGNATURES if content.startswith(signature, at)), None)
    if content[2:3] in b"\t\n\r #" and len(content) > 2:
        name = NETPBM.get(content[:2], name)
    if name is not None:
        return UnsupportedImageError(
            f"{name[0].upper()}{name[1:]} files are not read; send {READ_FORMATS}.", format=name
        )
    if b"<svg" in content[:1000]:
        return UnsupportedImageError(f"SVG files are not read; send {READ_FORMATS}.", format="SVG")
    return NotAnImageError(_describe_other_bytes(content))


def _describe_other_bytes(content: bytes) -> str:
    """Return a sentence that says what bytes are that are no image."""
    for at, signature, name in NOT_IMAGES:
        if content.startswith(signature, at):
            return f"The file is no photo but {name}; send {READ_FORMATS}."
    head = content[:SEARCHED_BYTES]
    beginning = head if head.startswith(b"\xef\xbf") else head.lstrip(b"\xef\xbb\xbf \t\r\n\"'")
    for words, sentence in TEXTS:
        if beginning.lower().startswith(words):
            return sentence
    if starts := [at for at in map(head.find, PHOTO_BEGINNINGS) if at > 0]:
        return f"The photo begins {min(starts):,} bytes after the beginning of the file: send it from there on."
    if b"<html" in head.lower():
        return HTML
    if _is_photo_in_base64(beginning):
        return BASE64
    return f"The file is not an image; send {READ_FORMATS}."


def _is_photo_in_base64(beginning: bytes) -> bool:
    text = beginning[:16].replace(b"-", b"+").replace(b"_", b"/")
    try:
        decoded = base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return decoded.startswith((b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"BM")) or decoded[4:8] == b"ftyp"
