"""The embedded server's configuration, written at every start."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

MIB = 2**20
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def get_memory_bytes() -> int:
    """Return the memory this process may use: the machine's, or the container's limit if that is less."""
    total = int(psutil.virtual_memory().total)
    for path in CGROUP_LIMITS:
        try:
            total = min(total, int(path.read_text()))
        except (OSError, ValueError):  # another version of cgroups, or "max"
            continue
    return total


def build_configuration(socket_directory: Path, available_bytes: int) -> str:
    """Return the text of postgresql.conf.

    Deliberately small: the networks need memory too. A gallery of 100,000 faces of 128 numbers takes about 50 MB.

    Args:
        socket_directory: Directory of the Unix socket; there is no TCP port.
        available_bytes: Memory of this machine or container.
    """
    settings: dict[str, str | int] = {
        "listen_addresses": "",
        "unix_socket_directories": f'"{socket_directory}"',
        "unix_socket_permissions": "0700",
        "max_connections": 40 if available_bytes < 2048 * MIB else 100,
        "shared_buffers": _format_mib(available_bytes // 8, 32, 1024),
        "effective_cache_size": _format_mib(available_bytes // 2, 64, 65536),
        "maintenance_work_mem": _format_mib(available_bytes // 32, 16, 256),
        "max_wal_size": "512MB",
        # After a crash one call instead of one for each of a thousand files: ready in 0.4 s instead of 1.3 s.
        "recovery_init_sync_method": "syncfs" if sys.platform == "linux" else "fsync",
        # A confirmed commit is on disk and survives a power failure.
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        # Statements hold names and vectors: none is logged, slow or failing, nor any parameters.
        "log_destination": "stderr",
        "logging_collector": "off",
        "log_statement": "none",
        "log_min_duration_statement": -1,
        "log_min_duration_sample": -1,
        "log_min_error_statement": "panic",
        "log_parameter_max_length": 0,
        "log_parameter_max_length_on_error": 0,
        "log_error_verbosity": "terse",
        "log_min_messages": "warning",
        "log_checkpoints": "off",
        "log_autovacuum_min_duration": -1,
        "log_line_prefix": "%m [%p] ",
        "track_activity_query_size": 100,
        "update_process_title": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "lc_messages": "C",
        "jit": "off",
    }
    lines = (f"{name} = '{str(value).replace(chr(39), chr(39) * 2)}'" for name, value in settings.items())
    return "# Written by Vultus at every start; ALTER SYSTEM changes settings for good.\n" + "\n".join(lines) + "\n"


def _format_mib(size_bytes: int, minimum: int, maximum: int) -> str:
    return f"{max(minimum, min(size_bytes // MIB, maximum))}MB"
