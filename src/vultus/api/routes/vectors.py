"""Registration of many persons from vectors."""

from __future__ import annotations

from typing import Annotated

from vultus import errors
from vultus.api.deps import CollectionRef, PrincipalDep, ServicesDep
from vultus.api.guard import create_router, require_permission
from vultus.api.idempotency import IDEMPOTENCY_PROBLEMS, accept_idempotency_key
from vultus.api.problems import declare_body_problems
from vultus.domain import IdempotencyContext, Permission
from vultus.schemas.vectors import VectorsIn, VectorsOut

MAX_VECTORS_BYTES = 20 * 2**20
"""What 5,000 persons need whose vectors have 512 numbers (2.7 kB in base64); of longer ones a request holds fewer."""

router = create_router("/collections/{collection}/vectors", tags=["persons"])


@router.post(
    "",
    status_code=201,
    summary="Register persons from vectors",
    responses=declare_body_problems(
        errors.NotFoundError,
        errors.AlreadyExistsError,
        errors.EmbeddingSpaceMismatchError,
        errors.ConflictError,
        *IDEMPOTENCY_PROBLEMS,
    ),
    openapi_extra=require_permission(Permission.ENROL, max_json_bytes=MAX_VECTORS_BYTES),
)
async def register_vectors(
    collection: CollectionRef,
    body: VectorsIn,
    services: ServicesDep,
    principal: PrincipalDep,
    idempotency: Annotated[IdempotencyContext | None, accept_idempotency_key(VectorsOut.from_domain)],
) -> VectorsOut:
    """Register up to 5,000 persons from vectors made elsewhere by the collection's network, all or none of them.

    Without photos, nothing checks quality, liveness, or whether a face is enrolled already.
    """
    return VectorsOut.from_domain(
        await services.bulk_registrar.register(principal, body.to_batch(collection), idempotency=idempotency)
    )
