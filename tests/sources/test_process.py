"""What a process that decodes may still do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sources.conftest import OpenFeed
from tests.sources.test_files import collect_frames

SHUT_IN = """
import ctypes, errno, os, socket, ssl, sys
from vultus.domain.source_addresses import AllowedSources
from vultus.sources.process import shut_in
from vultus.utils.confinement import confine_process

allowed, secret = sys.argv[1:]
confine_process(decoding_bytes=2**30)
if ctypes.CDLL(None).syscall(444, None, 0, 1) < 1:
    sys.exit("this kernel has no Landlock")
shut_in(AllowedSources((allowed, "192.168.7.0/24")), ())

def refuse(name, action, *errors):
    try:
        action()
    except OSError as error:
        assert error.errno in errors, (name, error)
    else:
        raise AssertionError(name)

open(allowed + "/video.mp4").read()
refuse("read", lambda: open(secret).read(), errno.EACCES)
refuse("list", lambda: os.listdir(os.path.dirname(secret)), errno.EACCES)
refuse("write", lambda: open(allowed + "/new", "w"), errno.EACCES)
refuse("delete", lambda: os.remove(allowed + "/video.mp4"), errno.EACCES)
refuse("run", lambda: os.execv("/bin/true", ["true"]), errno.EPERM, errno.EACCES)
refuse("look into the parent", lambda: open(f"/proc/{os.getppid()}/environ", "rb").read(), errno.EACCES, errno.EPERM)
refuse("local socket", lambda: socket.socket(socket.AF_UNIX), errno.EAFNOSUPPORT)
refuse("packets", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW), errno.EAFNOSUPPORT)
assert socket.getaddrinfo("localhost", 80)
assert ssl.create_default_context()
socket.create_server(("127.0.0.1", 0)).close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Landlock and seccomp are Linux's")
def test_a_decoder_has_the_internet_its_program_and_the_videos(tmp_path: Path) -> None:
    videos, secret = tmp_path / "videos", tmp_path / "data" / "key.bin"
    for path in (videos / "video.mp4", secret):
        path.parent.mkdir()
        path.write_bytes(b"content")

    done = subprocess.run(
        [sys.executable, "-c", SHUT_IN, str(videos), str(secret)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    if "no Landlock" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
async def test_a_decoder_is_shut_in_before_it_opens_a_source(video: Path, open_feed: OpenFeed) -> None:
    feed = open_feed(str(video))
    await collect_frames(feed, 1)

    status = Path(f"/proc/{feed.pid}/status").read_text()
    assert "Seccomp:\t2" in status
    assert "CapEff:\t0000000000000000" in status
