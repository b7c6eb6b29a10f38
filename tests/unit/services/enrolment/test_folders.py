"""Messy folders: what is a photo of whom, what is left out and why; nothing stops the rest, nothing outside is read."""

from __future__ import annotations

import os
import socket
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.faces import portrait

from vultus.errors import ImageTooLargeError, InvalidInputError
from vultus.services.enrolment.folder_import import open_scan
from vultus.services.enrolment.folders import iterate_photos, read_photo_inside, scan_people

JPEG = b"\xff\xd8\xff\xe0" + bytes(20)
WEBP = b"RIFF\0\0\0\0WEBPVP8 " + bytes(20)
HEIC = b"\0\0\0\x18ftypheic" + bytes(20)


def put(root: Path, *paths: str, content: bytes = JPEG) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Act as a user whom permissions hold, where root runs the tests."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def persons(root: Path) -> dict[str, list[str]]:
    return {person.name: [path.rpartition("/")[2] for path in person.photos] for person in scan_people(root).persons}


def left_out(root: Path) -> dict[str, str]:
    return {one.path: one.reason.value for one in scan_people(root).left_out}


def test_hidden_and_system_files_and_folders_are_left_out(tmp_path: Path) -> None:
    folders = ["#recycle", "@eaDir", ".Trash-1000", "__MACOSX", "lost+found", "$RECYCLE.BIN", "FOUND.000"]
    folders += ["System Volume Information", ".thumbnails", "Network Trash Folder"]
    files = ["._a.jpg", ".hidden.jpg", "Thumbs.db", "desktop.ini", ".DS_Store", "~$a.jpg"]
    put(tmp_path, "Ada/a.jpg", *(f"{folder}/t.jpg" for folder in folders), *(f"Ada/{file}" for file in files))
    put(tmp_path, "Ada/@eaDir/a.jpg")

    expected = [*folders, *(f"Ada/{file}" for file in files), "Ada/@eaDir"]
    assert persons(tmp_path) == {"Ada": ["a.jpg"]}
    assert left_out(tmp_path) == dict.fromkeys(expected, "system")


def test_photos_are_recognised_by_name_or_content(tmp_path: Path) -> None:
    put(tmp_path, *(f"Ada/{name}" for name in ("a.jfif", "b.JPEG", "c.jpg_large", "d", "e.pjpeg", "f.jpg~", "g.gif")))
    put(tmp_path, "Ada/h", content=WEBP)
    put(tmp_path, "Ada/i.bin", content=HEIC)
    put(tmp_path, "Ada/j.jpg", content=b"")
    put(tmp_path, "Ada/k.gif", "Ada/l", "Ada/m.txt", content=b"GIF89a")
    put(tmp_path, "Ada/n.jpg.part", "Ada/o.crdownload")

    assert persons(tmp_path) == {
        "Ada": ["a.jfif", "b.JPEG", "c.jpg_large", "d", "e.pjpeg", "f.jpg~", "g.gif", "h", "i.bin", "j.jpg"]
    }
    unfinished = dict.fromkeys(["Ada/n.jpg.part", "Ada/o.crdownload"], "unfinished")
    assert left_out(tmp_path) == dict.fromkeys(["Ada/k.gif", "Ada/l", "Ada/m.txt"], "not_a_photo") | unfinished


def test_folders_of_one_normal_form_are_one_person(tmp_path: Path) -> None:
    put(tmp_path, unicodedata.normalize("NFC", "Zoë") + "/a.jpg", unicodedata.normalize("NFD", "Zoë") + "/b.jpg")

    assert persons(tmp_path) == {unicodedata.normalize("NFC", "Zoë"): ["b.jpg", "a.jpg"]}


@pytest.mark.parametrize(
    "name",
    [os.fsdecode("José".encode("latin-1")), "\u202egpj.exe", "\ufeffBom", "a\x1b[31m", " ", "x" * 201],
    ids=ascii,
)
def test_a_folder_whose_name_nobody_can_have_stops_nobody(name: str, tmp_path: Path) -> None:
    put(tmp_path, "Ada/a.jpg", f"{name}/b.jpg", "Zoe/c.jpg")

    assert persons(tmp_path).keys() == {"Ada", "Zoe"}
    assert left_out(tmp_path) == {name: "name"}


def test_loose_and_nested_photos_are_counted(tmp_path: Path) -> None:
    put(tmp_path, "loose.jpg", "Ada/a.jpg", "Ada/2003/b.jpg", "Ada/2003/May/c.jpg")
    put(tmp_path, "notes.txt", content=b"text")
    (tmp_path / "Bob").mkdir()

    assert persons(tmp_path) == {"Ada": ["a.jpg"]}
    assert scan_people(tmp_path).empty == ("Bob",)
    assert left_out(tmp_path) == {
        "loose.jpg": "loose",
        "Ada/2003/b.jpg": "nested",
        "Ada/2003/May/c.jpg": "nested",
        "notes.txt": "not_a_photo",
    }
    assert sorted(iterate_photos(tmp_path)) == ["Ada/2003/May/c.jpg", "Ada/2003/b.jpg", "Ada/a.jpg", "loose.jpg"]


def test_nothing_but_regular_files_inside_is_read(tmp_path: Path) -> None:
    root, outside = tmp_path / "people", tmp_path / "outside"
    put(outside, "secret.jpg")
    put(root, "Ada/a.jpg", "Bob/b.jpg")
    ada = root / "Ada"
    for name, target in {
        "inside.jpg": "../Bob/b.jpg",
        "gone.jpg": "nowhere.jpg",
        "loop.jpg": "loop.jpg",
        "out.jpg": "../../outside/secret.jpg",
        "zero.jpg": "/dev/zero",
        "folder.jpg": "../../outside",
        "up": "..",
    }.items():
        (ada / name).symlink_to(target)
    (root / "Eve").symlink_to(outside)
    os.mkfifo(ada / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(ada / "s.jpg"))

    assert persons(root)["Ada"] == ["a.jpg", "gone.jpg", "inside.jpg", "loop.jpg"]
    links = dict.fromkeys(["Ada/out.jpg", "Ada/zero.jpg", "Ada/folder.jpg", "Ada/up", "Eve"], "link")
    assert left_out(root) == links | dict.fromkeys(["Ada/pipe.jpg", "Ada/s.jpg"], "not_a_file")
    assert read_photo_inside(root, "Ada/inside.jpg", max_bytes=100) == JPEG
    for refused in (*left_out(root), "Ada/gone.jpg", "Ada/loop.jpg", "../outside/secret.jpg", "Ada"):
        with pytest.raises(OSError, match=r".+"):
            read_photo_inside(root, refused, max_bytes=100)


def test_a_file_is_measured_before_it_is_read(tmp_path: Path) -> None:
    put(tmp_path, "Ada/a.jpg")
    os.truncate(tmp_path / "Ada/a.jpg", 2**40)  # sparse

    with pytest.raises(ImageTooLargeError, match="1,099,511,627,776 bytes"):
        read_photo_inside(tmp_path, "Ada/a.jpg", max_bytes=100)


def test_what_is_closed_stops_nobody(data_dir: Path) -> None:
    put(data_dir, "Ada/a.jpg", "Ada/b.jpg", "Ada/c", "Bob/b.jpg", "Zoe/z.jpg")
    data_dir.chmod(0o755)
    for path in ("Ada/b.jpg", "Ada/c", "Bob"):
        (data_dir / path).chmod(0)

    with as_nobody():
        found, reasons = persons(data_dir), left_out(data_dir)
        with pytest.raises(PermissionError):
            read_photo_inside(data_dir, "Ada/b.jpg", max_bytes=100)
    (data_dir / "Bob").chmod(0o755)

    assert found == {"Ada": ["a.jpg", "b.jpg"], "Zoe": ["z.jpg"]}
    assert reasons == {"Ada/c": "unreadable", "Bob": "unreadable"}


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ([], "It is empty"),
        (["Ada.jpg", "Bob.jpg"], "2 photos lie loose in it, as Ada.jpg"),
        (["Staff/Ada/a.jpg"], "1 photos lie deeper, as Staff/Ada/a.jpg: name the folder of folders, perhaps .*/Staff"),
    ],
)
def test_a_folder_without_people_says_what_it_holds(paths: list[str], words: str, tmp_path: Path) -> None:
    put(tmp_path, *paths, content=portrait())

    with pytest.raises(InvalidInputError, match=f"No folder of a person with photos.*{words}"):
        open_scan(tmp_path)
