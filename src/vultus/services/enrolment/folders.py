"""Folders of people on disk: what in them is a photo of whom, what is left out and why, and how a file is read safely.

Only regular files inside the folder are opened: nothing that a link leads to outside, no pipe, no device. Nothing here
stops at a single file or folder that cannot be used.
"""

from __future__ import annotations

import os
import re
import stat
from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from vultus.domain.texts import MAX_NAME_LENGTH, normalize_text
from vultus.errors import ImageTooLargeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PHOTO_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .jif .pjpeg .pjp .png .webp .mpo .heic .heif .avif".split()  # noqa: SIM905  reads as a list
)
"""Files that are tried whatever is in them; any other file is if it begins like a photo."""

_UNFINISHED_SUFFIXES = frozenset({".part", ".partial", ".crdownload", ".download", ".tmp", ".temp", ".filepart"})
_SYSTEM_NAMES = frozenset(
    {
        *("#recycle", "#snapshot", "@eadir", "@recently-snapshot", "@recycle", "@sharebin", "@tmp"),  # NAS
        *("$recycle.bin", "recycled", "recycler", "system volume information"),  # Windows
        *("desktop.ini", "ehthumbs.db", "ehthumbs_vista.db", "thumbs.db"),
        *("__macosx", "icon\r", "network trash folder", "temporary items"),  # macOS
        "lost+found",
    }
)
_SYSTEM_PATTERN = re.compile(r"\.|~\$|found\.\d{3}$", re.IGNORECASE)
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis"})
_HEAD_BYTES = 16


class LeftOutReason(StrEnum):
    """Why something in a folder is not imported."""

    LINK = "link"
    LOOSE = "loose"
    NAME = "name"
    NESTED = "nested"
    NOT_A_FILE = "not_a_file"
    NOT_A_PHOTO = "not_a_photo"
    SYSTEM = "system"
    UNFINISHED = "unfinished"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file or folder that is not imported; bytes of its path that are not UTF-8 are surrogates."""

    path: str
    reason: LeftOutReason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PersonFolder:
    """A person's photos, in the order of their names; their folder's name in its normal form."""

    name: str
    photos: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FolderScan:
    """What a folder of people holds; `empty` are the names of people without a photo."""

    persons: tuple[PersonFolder, ...]
    empty: tuple[str, ...]
    left_out: tuple[LeftOut, ...]


def scan_people(root: Path) -> FolderScan:
    """Look through a folder that holds one folder per person.

    Folders whose names have one normal form, as from Linux and from a Mac, are one person.

    Raises:
        OSError: The folder itself cannot be read.
    """
    scan = _Scanner(root)
    photos: defaultdict[str, list[str]] = defaultdict(list)
    for entry in _list_entries(root):
        if not scan.is_folder(entry, entry.name):
            if scan.is_photo(entry, entry.name):
                scan.leave_out(entry.name, LeftOutReason.LOOSE)
        elif (name := scan.find_person_name(entry.name)) is not None:
            photos[name] += scan.list_photos(entry.name)
    persons = tuple(PersonFolder(name, tuple(paths)) for name, paths in photos.items() if paths)
    return FolderScan(persons, tuple(name for name, paths in photos.items() if not paths), tuple(scan.left_out))


def iterate_photos(root: Path) -> Iterator[str]:
    """Yield the paths of the photos in a folder and all folders inside, in order."""
    scan = _Scanner(root)
    yield from scan.iterate_photos("")


def read_photo_inside(root: Path, path: str, *, max_bytes: int) -> bytes:
    """Return the bytes of a regular file in a folder; a link is followed only inside it.

    Args:
        root: The folder.
        path: Of the file, in the folder.
        max_bytes: Beyond it nothing is read.

    Raises:
        OSError: It cannot be read, or is no regular file of this folder.
        ImageTooLargeError: It is larger.
    """
    with os.fdopen(_open_inside(root, path), "rb") as stream:
        if (size := os.fstat(stream.fileno()).st_size) > max_bytes:
            raise ImageTooLargeError(f"The photo has {size:,} bytes; the limit is {max_bytes:,}.")
        return stream.read(max_bytes + 1)


def stamp_photos(root: Path, photos: Iterable[str]) -> dict[str, str]:
    """Return size and time of change of files, by path: what tells a file that was replaced; empty if there is none."""
    stamps: dict[str, str] = {}
    for path in photos:
        try:
            found = os.stat(root / path)  # noqa: PTH116  Path.stat raises for names that are not UTF-8
        except OSError:
            stamps[path] = ""
        else:
            stamps[path] = f"{found.st_size}-{found.st_mtime_ns}"
    return stamps


def is_system_name(name: str) -> bool:
    """Whether a file or folder is hidden, or made by a system for itself."""
    return name.casefold() in _SYSTEM_NAMES or _SYSTEM_PATTERN.match(name) is not None


class _Scanner:
    """Looks through one folder and collects what is left out."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.left_out: list[LeftOut] = []

    def leave_out(self, path: str, reason: LeftOutReason, detail: str = "") -> None:
        self.left_out.append(LeftOut(path, reason, detail))

    def find_person_name(self, folder: str) -> str | None:
        """Return a folder's name in its normal form; None if no person can be called so."""
        try:
            return normalize_text(folder, max_length=MAX_NAME_LENGTH)
        except ValueError as error:
            self.leave_out(folder, LeftOutReason.NAME, str(error))
            return None

    def list_photos(self, folder: str) -> list[str]:
        """Return the photos directly in a person's folder; those deeper are left out."""
        photos: list[str] = []
        for entry in self._list_folder(folder):
            path = f"{folder}/{entry.name}"
            if self.is_folder(entry, path):
                for nested in self.iterate_photos(path):
                    self.leave_out(nested, LeftOutReason.NESTED)
            elif self.is_photo(entry, path):
                photos.append(path)
        return photos

    def iterate_photos(self, folder: str) -> Iterator[str]:
        """Yield the photos in a folder and all folders inside."""
        for entry in self._list_folder(folder):
            path = f"{folder}/{entry.name}" if folder else entry.name
            if self.is_folder(entry, path):
                yield from self.iterate_photos(path)
            elif self.is_photo(entry, path):
                yield path

    def is_folder(self, entry: os.DirEntry[str], path: str) -> bool:
        """Whether an entry is a folder to look into; system folders are left out."""
        if not stat.S_ISDIR(_get_mode(entry)):
            return False
        if is_system_name(entry.name):
            self.leave_out(path, LeftOutReason.SYSTEM)
            return False
        return True

    def is_photo(self, entry: os.DirEntry[str], path: str) -> bool:
        """Whether an entry is a photo to try; any other one but a folder is left out."""
        if stat.S_ISDIR(mode := _get_mode(entry)):
            return False
        if reason := self._find_reason(entry, path, mode):
            self.leave_out(path, reason)
        return reason is None

    def _list_folder(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            return _list_entries(self._root / folder)
        except OSError as error:
            self.leave_out(folder, LeftOutReason.UNREADABLE, error.strerror or "")
            return []

    def _find_reason(self, entry: os.DirEntry[str], path: str, mode: int) -> LeftOutReason | None:
        if is_system_name(entry.name):
            return LeftOutReason.SYSTEM
        if stat.S_ISLNK(mode) and _leads_away(self._root, path):
            return LeftOutReason.LINK
        if not (stat.S_ISLNK(mode) or stat.S_ISREG(mode)):
            return LeftOutReason.NOT_A_FILE if mode else LeftOutReason.UNREADABLE
        suffix = PurePosixPath(entry.name).suffix.lower()
        if suffix in _UNFINISHED_SUFFIXES:
            return LeftOutReason.UNFINISHED
        return None if suffix in PHOTO_SUFFIXES else self._find_content_reason(path)

    def _find_content_reason(self, path: str) -> LeftOutReason | None:
        try:
            with os.fdopen(_open_inside(self._root, path), "rb") as stream:
                return None if _begins_like_photo(stream.read(_HEAD_BYTES)) else LeftOutReason.NOT_A_PHOTO
        except OSError:
            return LeftOutReason.UNREADABLE


def _list_entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return a folder's entries by name, so that a resumed import has the same order."""
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _begins_like_photo(head: bytes) -> bool:
    return (
        head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"))
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS)
    )


def _get_mode(entry: os.DirEntry[str]) -> int:
    """Return what an entry itself is, a link being one; 0 where that cannot be read."""
    try:
        return entry.stat(follow_symlinks=False).st_mode
    except OSError:
        return 0


def _leads_away(root: Path, path: str) -> bool:
    """Whether a link leads out of the folder, or to a folder."""
    return _find_parts(root, path) is None or os.path.isdir(root / path)  # noqa: PTH112  Path.is_dir raises for loops


def _find_parts(root: Path, path: str) -> tuple[str, ...] | None:
    """Return the names that lead from the folder to a file, links resolved; None if it is outside."""
    base = os.path.realpath(root)
    parts = Path(os.path.relpath(os.path.realpath(root / path), base)).parts
    return None if not parts or parts[0] == os.pardir else parts


def _open_inside(root: Path, path: str) -> int:
    """Open a regular file of a folder, name by name and without following a link, so that none can be put in between.

    Raises:
        OSError: It cannot be opened, lies outside, or is no regular file.
    """
    parts = _find_parts(root, path)
    if parts is None:
        raise PermissionError(1, "the link leads out of the folder", path)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    folder = os.open(os.path.realpath(root), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            inner = os.open(part, flags | os.O_DIRECTORY, dir_fd=folder)
            os.close(folder)
            folder = inner
        # Looked at before it is opened, because opening alone does something to a pipe or a device, and afterwards.
        _require_regular(os.stat(parts[-1], dir_fd=folder, follow_symlinks=False), path)
        opened = os.open(parts[-1], flags | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        _require_regular(os.fstat(opened), path)
    except OSError:
        os.close(opened)
        raise
    return opened


def _require_regular(found: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(22, "not a regular file", path)
