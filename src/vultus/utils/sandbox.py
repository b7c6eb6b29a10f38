"""What Linux lets a process take from itself, without rights and for good: files (Landlock), system calls (seccomp).

Where the kernel lacks one of them, nothing is taken by it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import stat
import struct
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION_FLAG = 1
RULE_PATH_BENEATH = 1
WRITE_FILE, READ_FILE, READ_FOLDER, IOCTL_DEVICE = 1 << 1, 1 << 2, 1 << 3, 1 << 15
FIRST_RIGHTS = (1 << 13) - 1
LATER_RIGHTS = {2: 1 << 13, 3: 1 << 14, 5: IOCTL_DEVICE}
"""Rights that a version of Landlock added."""

SCOPES_VERSION, SCOPES = 6, 0b11
"""Abstract sockets and signals to processes outside."""

SET_MODE_FILTER, SYNCHRONISE_THREADS = 1, 1
ALLOW, REFUSE = 0x7FFF0000, 0x00050000
NOT_PERMITTED, NO_SUCH_CALL, NO_SUCH_FAMILY = 1, 38, 97
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
NUMBER_AT, MACHINE_AT, FIRST_ARGUMENT_AT = 0, 4, 16
FOREIGN_CALLS = 0x40000000
"""Numbers from here are of another calling convention."""

INTERNET_FAMILIES = (2, 10, 16)
"""IPv4, IPv6, and netlink, by which addresses are chosen."""


class _Machine(NamedTuple):
    audit: int
    seccomp: int
    socket: int
    forbidden: tuple[int, ...]


_MACHINES = {
    # execve, execveat, ptrace, process_vm_readv, process_vm_writev, mount, unshare, setns, keyctl, add_key,
    # request_key, bpf, userfaultfd, perf_event_open, io_uring_setup, pidfd_getfd
    "x86_64": _Machine(
        0xC000003E, 317, 41, (59, 322, 101, 310, 311, 165, 272, 308, 250, 248, 249, 321, 323, 298, 425, 438)
    ),
    "aarch64": _Machine(
        0xC00000B7, 277, 198, (221, 281, 117, 270, 271, 40, 97, 268, 219, 217, 218, 280, 282, 241, 425, 438)
    ),
}


def restrict_files(readable: Iterable[str], writable: Iterable[str] = ()) -> bool:
    """Let this thread, and those it starts, use no files but these; return whether the kernel can.

    It runs no program, traces no other process, and, from Linux 6.12, sends signals to none. What is open stays so.

    Args:
        readable: Folders, files and devices; what does not exist is none, and will not be.
        writable: Folders in which files are made, and devices that are controlled.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(CREATE_RULESET, None, 0, VERSION_FLAG) if sys.platform == "linux" else -1
    if version < 1:
        return False
    rights = FIRST_RIGHTS | sum(right for since, right in LATER_RIGHTS.items() if since <= version)
    rules = struct.pack("=QQQ", rights, 0, SCOPES if version >= SCOPES_VERSION else 0)
    ruleset = libc.syscall(CREATE_RULESET, rules, len(rules), 0)
    if ruleset < 0:
        return False
    for paths, granted in ((readable, READ_FILE | READ_FOLDER), (writable, rights & ~1)):
        for path in paths:
            _add_rule(libc, ruleset, path, granted & rights)
    is_restricted = bool(libc.syscall(RESTRICT_SELF, ruleset, 0) == 0)
    os.close(ruleset)
    return is_restricted


def _add_rule(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not stat.S_ISDIR(os.fstat(opened).st_mode):
        rights &= WRITE_FILE | READ_FILE | IOCTL_DEVICE
    rule = struct.pack("=Qi", rights, opened)
    libc.syscall(ADD_RULE, ruleset, RULE_PATH_BENEATH, rule, 0)
    os.close(opened)


def restrict_calls() -> bool:
    """Forbid all threads of this process what no program of ours calls; return whether the kernel can.

    That is to run programs, to look into other processes, to change namespaces and keys, and every socket that is not
    of the Internet: the database listens on another.
    """
    machine = _MACHINES.get(platform.machine()) if sys.platform == "linux" else None
    if machine is None:
        return False
    code = [
        (LOAD, 0, 0, MACHINE_AT),
        (EQUAL, 1, 0, machine.audit),
        (RETURN, 0, 0, REFUSE | NO_SUCH_CALL),
        (LOAD, 0, 0, NUMBER_AT),
        (AT_LEAST, 0, 1, FOREIGN_CALLS),
        (RETURN, 0, 0, REFUSE | NO_SUCH_CALL),
    ]
    for number in machine.forbidden:
        code += [(EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE | NOT_PERMITTED)]
    code += [(EQUAL, 1, 0, machine.socket), (RETURN, 0, 0, ALLOW), (LOAD, 0, 0, FIRST_ARGUMENT_AT)]
    for family in INTERNET_FAMILIES:
        code += [(EQUAL, 0, 1, family), (RETURN, 0, 0, ALLOW)]
    code.append((RETURN, 0, 0, REFUSE | NO_SUCH_FAMILY))
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in code))
    header = struct.pack("@HP", len(code), ctypes.addressof(program))
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.syscall(machine.seccomp, SET_MODE_FILTER, SYNCHRONISE_THREADS, header) == 0)
