"""The protocol of a live session, without sockets and without waiting."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vultus.domain import Box, Frame, FrameResult, Track, TrackState
from vultus.errors import ErrorKind, ImageTruncatedError, NotFoundError, OverloadedError, SearchLimitError
from vultus.live import protocol
from vultus.live.close_codes import CODE_BY_KIND, FATAL_KINDS, CloseCode
from vultus.live.messages import (
    Admit,
    Admitted,
    BytesReceived,
    Close,
    Ended,
    FrameDone,
    Message,
    Process,
    Reply,
    SecretOffered,
    Send,
    SessionTerms,
    TextReceived,
    TimePassed,
)
from vultus.live.protocol import HEADER, Admitting, Greeting, Limits, Over, State, Streaming, on_message
from vultus.schemas.live import FrameRefusedOut, ResultOut, WelcomeOut

LIMITS = Limits(max_frame_bytes=1000, idle_s=30.0, resume_s=10.0)
TERMS = SessionTerms(
    session_id=uuid4(),
    collection_id=uuid4(),
    resumed=False,
    resume_token="token",
    ends_at=datetime(2026, 11, 24, tzinfo=UTC),
    closes_at=1000.0,
    frames_per_second=10.0,
)
JPEG = b"\xff\xd8\xff\xe0 picture"
DROPPED = OverloadedError("Photos came first.")


def frame(sequence: int, content: bytes = JPEG, captured_ms: int = 1_700_000_000_000) -> BytesReceived:
    return BytesReceived(HEADER.pack(sequence, captured_ms) + content)


def talk(state: State, *steps: tuple[float, Message]) -> tuple[State, list[Reply]]:
    replies: list[Reply] = []
    for now, message in steps:
        state, more = on_message(state, message, now)
        replies += more
    return state, replies


def streaming(**changes: object) -> Streaming:
    state, _ = talk(Greeting(LIMITS, 0.0), (0.0, SecretOffered("t", resumes=False)), (0.0, Admitted(TERMS)))
    assert isinstance(state, Streaming)
    return replace(state, **changes)  # type: ignore[arg-type]


def done(sequence: int, outcome: object = "result") -> FrameDone:
    if outcome == "result":
        outcome = FrameResult(sequence, 640, 480, (), {"detect": 5.0})
    return FrameDone(Frame(JPEG, sequence, datetime(2026, 11, 24, tzinfo=UTC)), outcome, 12.0)  # type: ignore[arg-type]


def closed(replies: list[Reply]) -> CloseCode | None:
    return next((reply.code for reply in replies if isinstance(reply, Close)), None)


@pytest.mark.parametrize(
    ("greeting", "asked"),
    [
        (SecretOffered("abc", resumes=False), Admit("abc", resumes=False)),
        (SecretOffered("abc", resumes=True), Admit("abc", resumes=True)),
        (TextReceived('{"type": "hello", "ticket": "abc"}'), Admit("abc", resumes=False)),
        (TextReceived('{"type": "hello", "resume_token": "abc"}'), Admit("abc", resumes=True)),
    ],
)
def test_a_session_begins_with_a_secret_and_welcomes(greeting: Message, asked: Admit) -> None:
    state, replies = talk(Greeting(LIMITS, 0.0), (1.0, greeting))
    assert (state, replies) == (Admitting(LIMITS), [asked])

    state, replies = talk(state, (1.1, Admitted(TERMS)))

    assert isinstance(state, Streaming)
    (sent,) = replies
    assert isinstance(sent, Send)
    assert isinstance(sent.message, WelcomeOut)
    assert sent.message.session_id == TERMS.session_id
    assert sent.message.resume_token == "token"


@pytest.mark.parametrize(
    "sent",
    [
        frame(1),
        TextReceived(""),
        TextReceived("{}"),
        TextReceived('{"type": "bye"}'),
        TextReceived('{"type": "hello"}'),
        TextReceived('{"type": "hello", "ticket": "a", "resume_token": "b"}'),
        TextReceived('{"type": "hello", "ticket": 1}'),
        TextReceived('{"type": "hello", "ticket": "a", "key": "b"}'),
        TextReceived('{"type": "hello", "ticket": "' + "a" * 2000 + '"}'),
        TextReceived("[" * 500),
    ],
)
def test_whatever_else_comes_first_is_malformed(sent: Message) -> None:
    state, replies = talk(Greeting(LIMITS, 0.0), (1.0, sent))

    assert isinstance(state, Over)
    assert closed(replies) is CloseCode.MALFORMED


def test_nothing_may_come_before_the_welcome() -> None:
    for sent in (frame(1), TextReceived('{"type": "bye"}')):
        _, replies = talk(Admitting(LIMITS), (1.0, sent))
        assert closed(replies) is CloseCode.MALFORMED


def test_a_client_that_says_nothing_is_closed() -> None:
    state, replies = talk(Greeting(LIMITS, 0.0), (protocol.HELLO_S, TimePassed()))
    assert not replies

    _, replies = talk(state, (protocol.HELLO_S + 0.1, TimePassed()))

    assert closed(replies) is CloseCode.HELLO_TIMEOUT


def test_a_frame_is_processed_and_answered() -> None:
    state, replies = talk(streaming(), (1.0, frame(7, captured_ms=1_700_000_000_040)))
    (process,) = replies
    assert isinstance(process, Process)
    assert process.frame.content == JPEG
    assert process.frame.sequence == 7
    assert process.frame.captured_at == datetime.fromtimestamp(1_700_000_000.040, UTC)

    state, replies = talk(state, (1.1, done(7)))

    (sent,) = replies
    assert isinstance(sent, Send)
    assert isinstance(sent.message, ResultOut)
    assert sent.message.sequence == 7
    assert sent.message.dropped == 0
    assert sent.message.timings_ms == {"detect": 5.0, "total": 12.0}
    assert isinstance(state, Streaming)
    assert not state.processing


def test_the_newest_frame_waits_and_the_others_are_counted() -> None:
    state, _ = talk(streaming(), *[(at / 10, frame(at)) for at in range(1, 6)])

    state, replies = talk(state, (0.6, done(1)))

    answer, process = replies
    assert isinstance(answer, Send)
    assert isinstance(answer.message, ResultOut)
    assert answer.message.dropped == 3  # 2, 3 and 4
    assert isinstance(process, Process)
    assert process.frame.sequence == 5
    state, replies = talk(state, (0.7, done(5)))
    (last,) = replies
    assert isinstance(last, Send)
    assert isinstance(last.message, ResultOut)
    assert last.message.dropped == 0


def test_a_frame_that_the_lane_drops_is_counted_and_the_next_goes_on() -> None:
    state, _ = talk(streaming(), (0.1, frame(1)), (0.2, frame(2)))

    state, replies = talk(state, (0.3, done(1, DROPPED)))
    assert [type(reply) for reply in replies] == [Process]
    _, replies = talk(state, (0.4, done(2)))

    (answer,) = replies
    assert isinstance(answer, Send)
    assert isinstance(answer.message, ResultOut)
    assert answer.message.dropped == 1


def test_a_frame_that_is_dropped_without_another_is_told_why() -> None:
    _, replies = talk(streaming(), (0.1, frame(1)), (0.2, done(1, DROPPED)))

    answer = replies[-1]
    assert isinstance(answer, Send)
    assert isinstance(answer.message, FrameRefusedOut)
    assert answer.message.code == "overloaded"
    assert answer.message.detail.startswith(DROPPED.detail)


def test_answers_come_in_the_order_of_the_frames() -> None:
    state, replies = talk(streaming(), (0.1, frame(1)), (0.2, frame(2, b"no picture")))
    assert [type(reply) for reply in replies] == [Process]
    state, replies = talk(state, (0.3, done(1)))
    assert [(type(one.message), one.message.sequence) for one in replies] == [(ResultOut, 1), (FrameRefusedOut, 2)]  # type: ignore[union-attr]

    _, replies = talk(state, (0.4, frame(3)))

    assert [type(reply) for reply in replies] == [Process]


OUTCOMES = st.sampled_from(["result", DROPPED, ImageTruncatedError("It ends.")])


@given(st.lists(st.tuples(st.floats(0.05, 0.3), st.just(JPEG) | st.just(b"no picture"), OUTCOMES), max_size=20))
def test_who_sends_the_next_frame_when_an_answer_came_always_gets_one(
    frames: list[tuple[float, bytes, object]],
) -> None:
    """Whoever waits for the answer to a frame that was dropped must not do so for good."""
    state: State = streaming()
    now = 0.0
    for sequence, (pause_s, content, outcome) in enumerate(frames, start=1):
        now += pause_s
        state, replies = talk(state, (now, frame(sequence, content)))
        if any(isinstance(reply, Process) for reply in replies):
            state, replies = talk(state, (now, done(sequence, outcome)))
        (answer,) = replies
        assert isinstance(answer, Send)
        assert isinstance(answer.message, ResultOut | FrameRefusedOut)
        assert answer.message.sequence == sequence


def test_frames_beyond_the_rate_are_dropped_not_queued() -> None:
    state, replies = talk(streaming(), *[(0.001 * at, frame(at)) for at in range(1, 21)])

    assert len(replies) == 1
    assert isinstance(state, Streaming)
    assert state.waiting is not None
    assert state.waiting.sequence == 3  # a burst of three, then nothing until time passes
    assert state.dropped == 18


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ImageTruncatedError("It ends."), "image_truncated"),
        (SearchLimitError("No more.", retry_after_s=9), "search_limit"),
    ],
)
def test_a_frame_that_cannot_be_used_is_refused_and_the_session_goes_on(error: Exception, code: str) -> None:
    state, replies = talk(streaming(), (1.0, frame(1)), (1.1, done(1, error)))

    assert isinstance(state, Streaming)
    answer = replies[-1]
    assert isinstance(answer, Send)
    assert isinstance(answer.message, FrameRefusedOut)
    assert (answer.message.sequence, answer.message.code) == (1, code)
    assert answer.message.retry_after_s == getattr(error, "facts", {}).get("retry_after_s")


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n", b"RIFF\x00\x00\x00\x00WAVE", b"x"])
def test_other_files_than_jpeg_and_webp_are_refused_unprocessed(content: bytes) -> None:
    state, replies = talk(streaming(), (1.0, frame(1, content)))

    (answer,) = replies
    assert isinstance(answer, Send)
    assert isinstance(answer.message, FrameRefusedOut)
    assert answer.message.code == "unsupported_image"
    assert isinstance(state, Streaming)


def test_an_error_that_no_other_frame_escapes_closes_the_session() -> None:
    _, replies = talk(streaming(), (1.0, frame(1)), (1.1, done(1, NotFoundError("Gone."))))

    assert closed(replies) is CloseCode.NOT_FOUND


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(0), CloseCode.MALFORMED),  # 5 was the newest
        (frame(5), CloseCode.MALFORMED),
        (frame(2**53), CloseCode.MALFORMED),
        (frame(6, captured_ms=2**63), CloseCode.MALFORMED),
        (frame(6, b""), CloseCode.MALFORMED),
        (BytesReceived(b"short"), CloseCode.MALFORMED),
        (BytesReceived(b""), CloseCode.MALFORMED),
        (frame(6, JPEG + bytes(1000)), CloseCode.FRAME_TOO_LARGE),
        (TextReceived('{"type": "hello", "ticket": "again"}'), CloseCode.MALFORMED),
        (TextReceived("?"), CloseCode.MALFORMED),
        (TextReceived('{"type": "bye"}'), CloseCode.DONE),
    ],
)
def test_what_breaks_the_protocol_ends_the_session(sent: Message, code: CloseCode) -> None:
    state, replies = talk(streaming(last_sequence=5), (1.0, sent))

    assert isinstance(state, Over)
    (close,) = replies
    assert isinstance(close, Close)
    assert close.code is code
    assert close.ends_session


def test_deadlines_close_a_session() -> None:
    state, replies = talk(streaming(), (5.0, frame(1)), (34.9, TimePassed()))
    assert closed(replies) is None

    _, idle = talk(state, (35.1, TimePassed()))
    _, over = talk(replace(state, last_frame_at=999.0), (1000.0, TimePassed()))  # type: ignore[arg-type]

    assert closed(idle) is CloseCode.IDLE
    assert not next(reply.ends_session for reply in idle if isinstance(reply, Close))
    assert closed(over) is CloseCode.SESSION_OVER


def test_a_flood_of_messages_closes_the_session() -> None:
    _, replies = talk(streaming(), *[(0.001 * at, frame(at)) for at in range(1, 72)])

    assert closed(replies) is CloseCode.TOO_MANY_MESSAGES


@pytest.mark.parametrize(
    "state", [Greeting(LIMITS, 0.0), Admitting(LIMITS), streaming()], ids=lambda one: type(one).__name__
)
@pytest.mark.parametrize("code", [CloseCode.KEY_ENDED, CloseCode.RESUMED_ELSEWHERE, CloseCode.STALLED])
def test_a_connection_is_ended_from_elsewhere_in_every_state(state: State, code: CloseCode) -> None:
    state, replies = talk(state, (1.0, Ended(code)), (1.1, frame(1)), (1.2, done(1)))

    assert isinstance(state, Over)
    (close,) = replies
    assert isinstance(close, Close)
    assert (close.code, close.ends_session) == (code, code is not CloseCode.STALLED)


def test_tracks_are_told_with_all_that_is_known_of_them() -> None:
    at = datetime(2026, 11, 24, tzinfo=UTC)
    landmarks = np.arange(10, dtype=np.float32).reshape(5, 2)
    track = Track(uuid4(), Box(1, 2, 3, 4), landmarks, TrackState.CONFIRMED, None, None, None, 40.0, at, at)
    outcome = FrameResult(1, 640, 480, (track,), {})

    _, replies = talk(streaming(), (1.0, frame(1)), (1.1, done(1, outcome)))

    answer = replies[-1]
    assert isinstance(answer, Send)
    (shown,) = answer.message.model_dump(mode="json")["tracks"]
    assert shown["track_id"] == str(track.id)
    assert shown["box"] == {"left": 1.0, "top": 2.0, "right": 3.0, "bottom": 4.0}
    assert shown["landmarks"]["right_mouth"] == {"x": 8.0, "y": 9.0}
    assert (shown["state"], shown["verdict"], shown["person"], shown["identity_age_ms"]) == (
        "confirmed",
        None,
        None,
        40.0,
    )


MESSAGES = st.one_of(
    st.builds(TextReceived, st.text(max_size=60)),
    st.builds(BytesReceived, st.binary(max_size=60)),
    st.builds(frame, st.integers(0, 2**64 - 1), st.binary(max_size=30), st.integers(0, 2**64 - 1)),
    st.builds(TextReceived, st.sampled_from(['{"type":"bye"}', '{"type":"hello","ticket":"a"}'])),
    st.just(TimePassed()),
    st.just(Admitted(TERMS)),
    st.builds(Ended, st.sampled_from(CloseCode)),
    st.builds(done, st.integers(0, 9), OUTCOMES | st.just(NotFoundError("x"))),
)


@given(st.lists(st.tuples(st.floats(0, 5), MESSAGES), max_size=40))
def test_no_message_in_any_order_fails_or_speaks_after_the_end(messages: list[tuple[float, Message]]) -> None:
    state: State = Greeting(LIMITS, 0.0)
    now = 0.0
    for step, message in messages:
        now += step
        was_over = isinstance(state, Over)
        state, replies = on_message(state, message, now)
        assert not (was_over and replies)
        assert (closed(list(replies)) is not None) == (isinstance(state, Over) and not was_over)


def test_every_kind_of_error_has_a_close_code_and_every_code_a_meaning_that_fits() -> None:
    assert set(CODE_BY_KIND) == set(ErrorKind)
    assert set(ErrorKind) > FATAL_KINDS
    assert all(0 < len(code.meaning.encode()) <= 123 for code in CloseCode)
    assert all(code < 1015 or 4000 <= code < 5000 for code in CloseCode)
