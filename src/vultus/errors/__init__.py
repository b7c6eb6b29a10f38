"""Exceptions raised deliberately. Each edge maps the kind once: to an HTTP status, to an exit code.

VultusError
├── MalformedRequestError             no HTTP, no form, or one that breaks off
├── InvalidInputError                 what was sent cannot be used
│   ├── ConsentRequiredError
│   ├── NoPhotoAcceptedError
│   ├── NoFaceFoundError
│   ├── SeveralFacesError
│   ├── ImageError                    the photo itself
│   │   ├── NotAnImageError
│   │   ├── ImageTruncatedError
│   │   ├── ImageTooSmallError
│   │   └── ImageTooSlowError
│   ├── EmbeddingSpaceMismatchError
│   ├── SignatureInvalidError         a signed document was changed, or another key signed it
│   └── IdempotencyNotSupportedError
├── UnsupportedImageError             a format that is not read
├── TooLargeError                     beyond a limit of size
│   ├── ImageTooLargeError
│   └── BodyTooLargeError
├── UnauthenticatedError              no key, or an unknown, revoked or expired one
├── ForbiddenError                    the key may not do it
│   └── AddressNotAllowedError        nobody may, for the operator has not allowed the address
├── LimitReachedError                 more than the caller may do within a time
│   ├── KeyFailureLimitError          unknown keys, of an address
│   ├── SearchLimitError              searches, of a key
│   ├── StreamLimitError              open event streams, of a key
│   └── VerificationLimitError        failed verifications, of a key and a person
├── NotFoundError
├── IdempotencyErasedError            repeated after who it was about was erased
├── EventsExpiredError                events that the reader has missed
├── ConflictError
│   ├── AlreadyExistsError
│   ├── IdempotencyMismatchError
│   ├── IdempotencyInFlightError
│   ├── PersonMismatchError
│   └── MigrationIncompleteError
├── RequestTimeoutError               the caller stopped sending
├── OverloadedError                   full; try again later
├── UnavailableError                  something needed is down
│   ├── DatabaseUnavailableError
│   ├── StorageFullError
│   └── WorkerLostError               the process that analysed a photo died
└── SetupError                        the installation requires operator action
    ├── SchemaNotCurrentError
    ├── ExtensionMissingError
    ├── EmbeddedDatabaseError
    ├── WeightsError
    │   ├── LicenceError
    │   └── DownloadError
    ├── PackNotLoadedError
    ├── KeyRingError
    ├── LedgerError
    ├── ScrubError                    what was erased is still in the database's files
    └── LivenessNotLoadedError
"""

from __future__ import annotations

from vultus.errors.kinds import SERVER_FAULT_KINDS as SERVER_FAULT_KINDS
from vultus.errors.kinds import ErrorKind as ErrorKind
from vultus.errors.kinds import VultusError as VultusError


class MalformedRequestError(VultusError):
    """The request is not HTTP, or its body no multipart form, or it breaks off in the middle."""

    kind, code, title = ErrorKind.MALFORMED, "malformed_request", "Malformed request"


class InvalidInputError(VultusError):
    """What was sent is well-formed but cannot be used."""

    kind, code, title = ErrorKind.INVALID, "invalid_input", "Invalid input"


class ConsentRequiredError(InvalidInputError):
    """A registration came without a consent, so nothing was stored."""

    code, title = "consent_required", "Consent required"


class NoPhotoAcceptedError(InvalidInputError):
    """Every photo of a registration was rejected, so nothing was stored."""

    code, title = "no_photo_accepted", "No photo accepted"


class NoFaceFoundError(InvalidInputError):
    """A photo that must show a face shows none."""

    code, title = "no_face", "No face found"


class SeveralFacesError(InvalidInputError):
    """A photo that must show one face shows several."""

    code, title = "several_faces", "Several faces found"


class ImageError(InvalidInputError):
    """The photo cannot be used."""

    code, title = "invalid_image", "Invalid image"


class NotAnImageError(ImageError):
    """The bytes are not an image, or are empty."""

    code, title = "not_an_image", "Not an image"


class ImageTruncatedError(ImageError):
    """The image ends before its data does, or its data is damaged."""

    code, title = "image_truncated", "Image truncated or damaged"


class ImageTooSmallError(ImageError):
    """The image has too few pixels to show a face."""

    code, title = "image_too_small", "Image too small"


class ImageTooSlowError(ImageError):
    """Decoding the image takes too long; it was stopped."""

    code, title = "image_too_slow", "Image takes too long to decode"


class EmbeddingSpaceMismatchError(InvalidInputError):
    """A vector of another embedding space or dimension than the collection's."""

    code, title = "contract_mismatch", "Vector of another contract"


class SignatureInvalidError(InvalidInputError):
    """A signed document was changed, or another key signed it."""

    code, title = "signature_invalid", "Signature invalid"


class IdempotencyNotSupportedError(InvalidInputError):
    """An Idempotency-Key came with a request whose answer is not stored, so nothing was done."""

    code, title = "idempotency_not_supported", "Idempotency-Key not supported here"


class UnsupportedImageError(VultusError):
    """The image is of a format that is not read."""

    kind, code, title = ErrorKind.UNSUPPORTED, "unsupported_image", "Unsupported image format"


class TooLargeError(VultusError):
    """Beyond a limit of size."""

    kind, code, title = ErrorKind.TOO_LARGE, "too_large", "Too large"


class ImageTooLargeError(TooLargeError):
    """The image has more pixels or bytes than the limit; it was not decoded."""

    code, title = "image_too_large", "Image too large"


class BodyTooLargeError(TooLargeError):
    """The request's body is longer than the limit; reading stopped there."""

    code, title = "body_too_large", "Request too large"


class UnauthenticatedError(VultusError):
    """No API key, or one that is unknown, revoked or expired."""

    kind, code, title = ErrorKind.UNAUTHENTICATED, "unauthenticated", "API key required"


class ForbiddenError(VultusError):
    """The key is valid but lacks the permission for this."""

    kind, code, title = ErrorKind.FORBIDDEN, "forbidden", "Not allowed"


class AddressNotAllowedError(ForbiddenError):
    """The operator has not allowed the server to open this address, whoever asks."""

    code, title = "address_not_allowed", "Address not allowed"


class LimitReachedError(VultusError):
    """The caller has done as much as it may for now; `retry_after_s` says when it may again."""

    kind, code, title = ErrorKind.LIMITED, "limit_reached", "Limit reached"


class KeyFailureLimitError(LimitReachedError):
    """Too many unknown API keys came from this address."""

    code, title = "key_failure_limit", "Too many unknown keys"


class SearchLimitError(LimitReachedError):
    """The key has searched for as many faces as it may within an hour."""

    code, title = "search_limit", "Too many searches"


class StreamLimitError(LimitReachedError):
    """The key has as many event streams open as it may have."""

    code, title = "stream_limit", "Too many event streams"


class VerificationLimitError(LimitReachedError):
    """Too many verifications of this person with this key have failed."""

    code, title = "verification_limit", "Too many failed verifications"


class NotFoundError(VultusError):
    """Nothing with that id or name."""

    kind, code, title = ErrorKind.NOT_FOUND, "not_found", "Not found"


class ConflictError(VultusError):
    """The request contradicts what is stored."""

    kind, code, title = ErrorKind.CONFLICT, "conflict", "Conflict"


class AlreadyExistsError(ConflictError):
    """Something with that name or external id exists."""

    code, title = "already_exists", "Already exists"


class IdempotencyInFlightError(ConflictError):
    """The first request with this Idempotency-Key has not finished."""

    code, title = "idempotency_in_flight", "First request still running"


class IdempotencyErasedError(VultusError):
    """The Idempotency-Key is that of a request about somebody who has been erased since; nothing was done again."""

    kind, code, title = ErrorKind.GONE, "idempotency_erased", "Erased since the first request"


class EventsExpiredError(VultusError):
    """Events after the cursor were deleted for their age: the reader has missed some, and starts again without one."""

    kind, code, title = ErrorKind.GONE, "events_expired", "Events have been missed"


class IdempotencyMismatchError(ConflictError):
    """The Idempotency-Key was used before with another body."""

    kind = ErrorKind.MISMATCH
    code, title = "idempotency_mismatch", "Idempotency-Key used with another body"


class PersonMismatchError(ConflictError):
    """The ids or the name of the request are not those of one person, so nothing was stored."""

    kind = ErrorKind.MISMATCH
    code, title = "person_mismatch", "Ids or name of another person"


class MigrationIncompleteError(ConflictError):
    """The step of the migration would leave persons unmigrated or lose faces."""

    code, title = "transition_incomplete", "Change of network incomplete"


class RequestTimeoutError(VultusError):
    """The caller stopped sending in the middle of a request."""

    kind, code, title = ErrorKind.TIMEOUT, "request_timeout", "Request timed out"


class OverloadedError(VultusError):
    """The queue is full; the caller should retry with backoff."""

    kind, code, title = ErrorKind.OVERLOADED, "overloaded", "Server overloaded"


class UnavailableError(VultusError):
    """A dependency is down; without it the response would be wrong."""

    kind, code, title = ErrorKind.UNAVAILABLE, "unavailable", "Service unavailable"


class DatabaseUnavailableError(UnavailableError):
    """The database cannot be reached."""

    code, title = "database_unavailable", "Database unavailable"


class StorageFullError(UnavailableError):
    """The disk of the database is full: nothing can be stored; what is stored can be read."""

    code, title = "storage_full", "Storage full"


class WorkerLostError(UnavailableError):
    """The process that analysed the photo ended; another one takes its place."""

    code, title = "worker_lost", "Analysis broke off"


class SetupError(VultusError):
    """The installation requires operator action; the detail names the command to run."""

    kind, code, title = ErrorKind.SETUP, "setup", "Set-up incomplete"


class SchemaNotCurrentError(SetupError):
    """The database schema is older or newer than this program."""

    code, title = "schema_not_current", "Database schema is not current"


class ExtensionMissingError(SetupError):
    """PostgreSQL lacks pgvector, or has one that is too old."""

    code, title = "extension_missing", "pgvector is missing or too old"


class EmbeddedDatabaseError(SetupError):
    """The embedded PostgreSQL could not be started."""

    code, title = "embedded_database", "Embedded database failed"


class WeightsError(SetupError):
    """A network's weights are missing or have the wrong digest."""

    code, title = "weights", "Network weights unusable"


class LicenceError(WeightsError):
    """A network's licence was not accepted, or does not allow commercial use."""

    code, title = "licence", "Licence not accepted"


class DownloadError(WeightsError):
    """Weights could not be fetched."""

    code, title = "download", "Download failed"


class LivenessNotLoadedError(SetupError):
    """Liveness was requested, but no liveness network is loaded; the same request can never succeed here."""

    kind = ErrorKind.CONFLICT
    code, title = "liveness_not_loaded", "No liveness network loaded"


class PackNotLoadedError(SetupError):
    """A collection's vectors were made by a pack that this process has not loaded."""

    code, title = "pack_not_loaded", "Pack not loaded"


class KeyRingError(SetupError):
    """The key ring, the installation's keys or those of persons are missing, damaged or another installation's."""

    code, title = "key_ring", "Keys unusable"


class ScrubError(SetupError):
    """The files of the database could not be freed of what was erased; no erasure counts as scrubbed by it."""

    code, title = "scrub", "Not scrubbed"


class LedgerError(SetupError):
    """The ledger of erasures cannot be read or written, or was changed."""

    code, title = "ledger", "Ledger of erasures unusable"
