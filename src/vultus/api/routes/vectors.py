"""Registering many persons from vectors."""

from __future__ import annotations

from fastapi import APIRouter

from vultus import errors
from vultus.api.deps import App, CollectionRef, Who
from vultus.api.guard import GuardedRoute, needs
from vultus.api.problems import body_problems
from vultus.domain import Role
from vultus.schemas.vectors import VectorsIn, VectorsOut

router = APIRouter(route_class=GuardedRoute, prefix="/collections/{collection}/vectors", tags=["persons"])


@router.post(
    "",
    status_code=201,
    summary="Register persons from vectors",
    responses=body_problems(
        errors.NotFoundError, errors.AlreadyExistsError, errors.ContractMismatchError, errors.ConflictError
    ),
    openapi_extra=needs(Role.ENROL, long_body=True),
)
async def register_vectors(collection: CollectionRef, body: VectorsIn, app: App, who: Who) -> VectorsOut:
    """Register up to 5,000 persons from vectors made elsewhere by the collection's network, all or none of them.

    There is no photo to judge: no quality, no liveness, and nobody looks whether a face is enrolled already.
    """
    return VectorsOut.of(await app.bulk.register(body.batch(collection), actor=who))
