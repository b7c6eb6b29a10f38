"""Registers a person, recognises them and forgets them again; needs `pip install httpx`."""

import os
import sys
import time
import uuid
from pathlib import Path

import httpx

TRIES = 5


class RefusedError(Exception):
    """What was asked for was refused; `code` is for programs, the text for people."""

    def __init__(self, problem: dict) -> None:
        super().__init__(problem["detail"])
        self.code = problem["code"]


class Vultus:
    def __init__(self, address: str, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        self.http = httpx.Client(base_url=address, headers=headers, timeout=30)

    def request(self, method: str, path: str, **content: object) -> dict:
        """Send a request until it is answered. One key for all tries: whatever it does is done once."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        for left in reversed(range(TRIES)):
            try:
                answer = self.http.request(method, path, headers=headers, **content)
            except httpx.TransportError:
                if not left:
                    raise
                time.sleep(1)
                continue
            if answer.is_success:
                return answer.json() if answer.content else {}
            problem = answer.json()
            if left and answer.status_code in {429, 503} and problem["code"] != "worker_lost":
                time.sleep(float(answer.headers.get("Retry-After", 1)))
            elif left and problem["code"] == "idempotency_in_flight":  # the try before still runs
                time.sleep(1)
            else:
                raise RefusedError(problem)
        raise AssertionError

    def register(self, external_id: str, name: str, photos: list[str], purpose: str) -> dict:
        files = [("photo", (Path(photo).name, Path(photo).read_bytes())) for photo in photos]
        consent = {"consent_purpose": purpose, "consent_recorded_by": "reception"}
        return self.request(
            "POST", "/v1/register", data={"external_id": external_id, "name": name, **consent}, files=files
        )

    def recognise(self, photo: str) -> list[dict]:
        return self.request("POST", "/v1/recognize", files={"photo": Path(photo).read_bytes()})["faces"]

    def erase(self, external_id: str) -> None:
        self.request("DELETE", f"/v1/collections/default/persons/external_id:{external_id}")


def main(address: str, photo: str) -> None:
    vultus = Vultus(address, os.environ["KEY"])
    try:
        registered = vultus.register("E-1017", "Ada", [photo], "Entry to building A")
    except RefusedError as refused:
        raise SystemExit(f"{refused.code}: {refused}") from None
    print("registered", registered["person"]["external_id"])
    for face in vultus.recognise(photo):
        print(face["verdict"], face["person"]["name"] if face["person"] else "")
    vultus.erase("E-1017")
    print("after erasure:", *(face["verdict"] for face in vultus.recognise(photo)))


if __name__ == "__main__":
    if len(sys.argv) != 3 or "KEY" not in os.environ:
        raise SystemExit("Usage: KEY=vultus_… client.py http://127.0.0.1:8000 ada.jpg")
    main(sys.argv[1], sys.argv[2])
