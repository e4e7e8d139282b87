"""The cookie of a session's own origin: who was admitted to what, signed by the relay.

It stands for one user at one session, is kept by that session's host name alone, and opens
nothing else. What it says comes from the session service's answer to the ticket. That it
has not been revoked is asked anew as long as it is used (see `rights`).
"""

import base64
import binascii
import hashlib
import hmac

from pydantic import BaseModel, ConfigDict, ValidationError

from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.requests import Admission

_PURPOSE = b"streamspace app pass v1\0"
_MAX_LENGTH = 3000
"""Characters; browsers keep 4096 bytes."""


class Pass(BaseModel):
    """What a cookie says; `expires` in seconds of the epoch."""

    model_config = ConfigDict(frozen=True)

    admission: Admission
    expires: int


class Passes:
    """Issues and reads passes.

    Args:
        key: the secret they are signed with; replicas share it.
        lifetime: seconds a pass is good for.
        secure: whether browsers come by https, which a `__Host-` cookie needs.
    """

    def __init__(self, key: bytes, *, lifetime: float, secure: bool) -> None:
        self._key = key
        self._lifetime = int(lifetime)
        self._secure = secure
        self.cookie = "__Host-streamspace" if secure else "streamspace_session"

    def issue(self, admission: Admission, now: float) -> str:
        """A new pass as the value of a Set-Cookie header."""
        text = Pass(admission=admission, expires=int(now) + self._lifetime)
        payload = text.model_dump_json().encode()
        value = f"{_encode(payload)}.{_encode(self._sign(payload))}"
        flags = "; Secure" if self._secure else ""
        limits = f"Path=/; Max-Age={self._lifetime}; HttpOnly; SameSite=Lax{flags}"
        return f"{self.cookie}={value}; {limits}"

    def read(self, value: str, session: SessionId, now: float) -> Admission | None:
        """Whom a cookie's value admits to `session`; None for nobody."""
        encoded, dot, signature = value.partition(".")
        if not dot or len(value) > _MAX_LENGTH:
            return None
        try:
            payload = _decode(encoded)
            if not hmac.compare_digest(self._sign(payload), _decode(signature)):
                return None
            found = Pass.model_validate_json(payload)
        except (binascii.Error, ValueError, ValidationError):
            return None
        if found.expires <= now or found.admission.session_id != session:
            return None
        return found.admission

    def _sign(self, payload: bytes) -> bytes:
        return hmac.digest(self._key, _PURPOSE + payload, hashlib.sha256)


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
