"""Archives of strangers: what they say of themselves fills no memory before anything of it was checked."""

from __future__ import annotations

import tarfile
from io import BytesIO

import pytest

from vultus.errors import InvalidInputError
from vultus.utils import archives
from vultus.utils.archives import ArchiveReader, ArchiveWriter


def write_header(kind: bytes = tarfile.REGTYPE, name: str = "member", size: int = 2**20) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.type, entry.size = kind, size
    return entry.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "header",
    [
        *(
            write_header(kind)
            for kind in (
                *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME),
                *(tarfile.GNUTYPE_LONGLINK, tarfile.GNUTYPE_SPARSE, tarfile.SYMTYPE, tarfile.DIRTYPE),
            )
        ),
        write_header(size=2**33),
        write_header(size=-1),
        write_header(name="../member"),
        write_header(name="m\x1b[2J"),
        write_header(name="digests.json"),
        write_header(name="signature.json"),
    ],
)
def test_a_header_that_the_writer_does_not_make_is_refused_and_nothing_behind_it_read(header: bytes) -> None:
    stream = BytesIO(header + bytes(2**20))

    with pytest.raises(InvalidInputError, match="no archive"):
        list(ArchiveReader(stream, "x").read_members())

    assert stream.tell() == len(header)


def test_what_could_not_be_read_again_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 1)
    writer = ArchiveWriter(stream := BytesIO())
    with pytest.raises(InvalidInputError, match="does not fit"):
        writer.add_member("large", bytes(archives.MAX_MEMBER_BYTES + 1))
    assert stream.getvalue() == b""
    writer.add_member("first", b"")

    with pytest.raises(InvalidInputError, match="does not fit"):
        writer.add_member("second", b"")
