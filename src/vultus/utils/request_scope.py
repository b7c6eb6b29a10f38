"""The scope of a request, whatever carries it: its id, stages and principal, and what it takes of shared limits."""

from __future__ import annotations

import re
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self
from uuid import uuid4

from vultus.errors import OverloadedError
from vultus.utils import metrics

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass(frozen=True, slots=True)
class Quota:
    """What a request's key may search for within an hour.

    Attributes:
        limit: Faces an hour.
        left: Faces that are left in this one, at most.
        ends_in_s: Seconds until it ends.
    """

    limit: int
    left: int
    ends_in_s: float


class RequestLimits:
    """What all requests of a process may take together.

    Args:
        max_requests: Requests in flight before new ones are refused.
        max_bodies_bytes: Bytes of bodies in memory before new ones are refused.
    """

    def __init__(self, *, max_requests: int, max_bodies_bytes: int) -> None:
        self.max_requests = max_requests
        self.max_bodies_bytes = max_bodies_bytes
        self.in_flight = 0
        self.held_bytes = 0


class RequestScope:
    """One request, or one session of a live client: the block that serves it, for its task and the tasks it starts.

    Args:
        limits: Shared by all requests of the process; call `ensure_admitted` before anything is read.
        incoming_id: Kept as the request's id if it is a word, else one is made.

    Attributes:
        request_id: For the log, the audit record and the caller.
        stages: Milliseconds by stage, in the order in which they ran first.
        error_code: Of the problem that was answered; empty if none was.
        error_cause: Its detail, if it lies in the server.
        quota: Of the key, if the request searched or was refused to.
    """

    __slots__ = (
        *("_held_bytes", "_limits", "_principal", "_started", "_token"),
        *("error_cause", "error_code", "quota", "request_id", "stages"),
    )

    def __init__(self, limits: RequestLimits, incoming_id: str = "") -> None:
        self.request_id = incoming_id if _REQUEST_ID.fullmatch(incoming_id) else uuid4().hex
        self.stages: dict[str, float] = {}
        self.error_code = self.error_cause = ""
        self.quota: Quota | None = None
        self._limits = limits
        self._principal: Any = None
        self._started = time.perf_counter()
        self._held_bytes = 0

    def __enter__(self) -> Self:
        self._token = _scope.set(self)
        self._limits.in_flight += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._limits.in_flight -= 1
        self.release_bytes()
        _scope.reset(self._token)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the request began."""
        return time.perf_counter() - self._started

    @property
    def principal_id(self) -> str:
        """The id of the originator; empty before it is known."""
        return "" if self._principal is None else str(self._principal.id)

    @property
    def principal(self) -> Any:
        """The originator of the request, a `Principal`; utilities do not import the domain.

        Raises:
            RuntimeError: The request was not authenticated.
        """
        if self._principal is None:
            raise RuntimeError("the request was not authenticated")
        return self._principal

    @principal.setter
    def principal(self, principal: object) -> None:
        self._principal = principal

    def begin_wait(self) -> None:
        """Count the request as not in flight: it waits for its caller, who may take long and costs nothing."""
        self._limits.in_flight -= 1

    def end_wait(self) -> None:
        """Count the request as in flight again."""
        self._limits.in_flight += 1

    def ensure_admitted(self) -> None:
        """Raise if more requests are in flight than allowed.

        Raises:
            OverloadedError: They are, this one included.
        """
        if self._limits.in_flight > self._limits.max_requests:
            metrics.get_labelled(metrics.REFUSALS, "requests").inc()
            raise OverloadedError(f"{self._limits.max_requests} requests are under way; try again soon.")

    def hold_bytes(self, length: int) -> None:
        """Count bytes of the body as held in memory, until `release_bytes` or the end of the scope.

        Raises:
            OverloadedError: All requests together hold too many.
        """
        self._held_bytes += length
        self._limits.held_bytes += length
        if self._limits.held_bytes > self._limits.max_bodies_bytes:
            metrics.get_labelled(metrics.REFUSALS, "bytes").inc()
            raise OverloadedError("Too many bytes of requests are under way; try again soon.")

    def release_bytes(self) -> None:
        """Count the body as no longer held in memory."""
        self._limits.held_bytes -= self._held_bytes
        self._held_bytes = 0

    def format_server_timing(self) -> str | None:
        """Return the value of a `Server-Timing` header (W3C Server Timing); None if no stage ran.

        Stages in milliseconds, then the total from the beginning of the request until now.
        """
        if not self.stages:
            return None
        durations = [*self.stages.items(), ("total", self.elapsed_s * 1e3)]
        return ", ".join(f"{name};dur={ms:.1f}" for name, ms in durations)


_scope: ContextVar[RequestScope | None] = ContextVar("request_scope", default=None)


def find_scope() -> RequestScope | None:
    """Return the scope of the request that this task serves, if it serves one."""
    return _scope.get()


def get_scope() -> RequestScope:
    """Return the scope of the request that this task serves.

    Raises:
        RuntimeError: It serves none.
    """
    scope = _scope.get()
    if scope is None:
        raise RuntimeError("this task serves no request")
    return scope


def get_request_id() -> str:
    """Return the id of the request that this task serves; a dash if it serves none."""
    scope = _scope.get()
    return "-" if scope is None else scope.request_id
