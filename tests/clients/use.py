"""Registers and recognises with the generated client; prints the verdict and the person."""

# mypy: ignore-errors
from __future__ import annotations

import json
import sys
from io import BytesIO
from pathlib import Path

from vultus_client import AuthenticatedClient
from vultus_client.api.persons import list_persons
from vultus_client.api.recognition import recognize
from vultus_client.api.registration import register
from vultus_client.models import PersonPage, Problem, Recognition, RecognizeForm, RegisterForm, Registration
from vultus_client.types import File

address, key, path = sys.argv[1:]
client = AuthenticatedClient(base_url=address, token=key)


def open_photo() -> File:
    return File(payload=BytesIO(Path(path).read_bytes()), file_name="ada.jpg", mime_type="image/jpeg")


registered = register.sync(
    client=client,
    body=RegisterForm(
        photo=[open_photo()],
        name="Ada",
        external_id="E-1017",
        metadata='{"floor": 2}',
        consent_purpose="Tests",
        consent_recorded_by="tests",
    ),
)
assert isinstance(registered, Registration), registered
found = recognize.sync(client=client, body=RecognizeForm(photo=open_photo()))
assert isinstance(found, Recognition), found
persons = list_persons.sync("default", client=client)
assert isinstance(persons, PersonPage), persons
refused = recognize.sync(client=client, body=RecognizeForm(photo=open_photo(), limit=51))
assert isinstance(refused, Problem), refused
face = found.faces[0]
sys.stdout.write(
    json.dumps(
        {
            "verdict": face.verdict.value,
            "person": bool(face.person and face.person.id == registered.person.id),
            "reasons": [reason.value for reason in face.reasons],
            "listed": len(persons.items),
            "code": refused.code.value,
        }
    )
)
