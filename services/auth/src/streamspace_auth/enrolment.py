"""Enrolments: a NATS credential with exactly an agent's rights, and where to use it."""

import base64
import json
from pathlib import Path

import nkeys

from streamspace_auth.ports import MintedEnrolment
from streamspace_common.bus import credentials
from streamspace_common.bus.credentials import Issuer
from streamspace_common.contracts.clusters import Enrolment
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.runtime.supervisor import FatalError


class NatsEnroller:
    """Implements `ports.Enroller`.

    Args:
        issuer: the agents' account and its signing key.
        nats_urls: where agents find NATS.
        tunnel_url: where agents dial tunnels back to.
        certificate_authorities: what agents trust there besides their system's own (PEM).
    """

    def __init__(
        self,
        issuer: Issuer,
        *,
        nats_urls: tuple[str, ...],
        tunnel_url: str,
        certificate_authorities: str | None = None,
    ) -> None:
        self._issuer = issuer
        self._nats_urls = nats_urls
        self._tunnel_url = tunnel_url
        self._authorities = certificate_authorities
        self.issuer = credentials.public_key(issuer.signing_seed)

    def mint(self, cluster_id: ClusterId) -> MintedEnrolment:
        enrolment = Enrolment(
            cluster_id=cluster_id,
            nats_urls=self._nats_urls,
            credentials=credentials.agent_credentials(self._issuer, cluster_id),
            tunnel_url=self._tunnel_url,
            certificate_authorities=self._authorities,
        )
        user = self.user_of(enrolment)
        if user is None:
            raise AssertionError("a credential that was just made names its user")
        return MintedEnrolment(enrolment=enrolment, credential=user, issuer=self.issuer)

    def user_of(self, enrolment: Enrolment) -> str | None:
        for line in enrolment.credentials.splitlines():
            match line.split("."):
                case [_, claims, _]:
                    return _subject(claims)
        return None

    def relocated(self, enrolment: Enrolment) -> Enrolment:
        return enrolment.model_copy(
            update={
                "nats_urls": self._nats_urls,
                "tunnel_url": self._tunnel_url,
                "certificate_authorities": self._authorities,
            }
        )


def read_issuer(seed_file: Path, account: str | None) -> Issuer:
    """The issuer whose seed stands in a file; `account` is None where the seed is its own.

    Raises:
        FatalError: the file is missing or holds no account's seed; the text does not quote it.
    """
    try:
        seed = seed_file.read_text(encoding="ascii").strip()
        public = credentials.public_key(seed)
    except OSError as error:
        raise FatalError(
            f"STREAMSPACE_AUTH_ACCOUNT_SEED_FILE: {seed_file} cannot be read: {error.strerror}."
        ) from None
    except (ValueError, nkeys.NkeysError):
        public = ""
    if not public.startswith("A"):
        raise FatalError(
            f"STREAMSPACE_AUTH_ACCOUNT_SEED_FILE: {seed_file} does not hold the seed of a NATS "
            "account (SA...)."
        )
    return Issuer(account=account or public, signing_seed=seed)


def read_authorities(path: Path | None) -> str | None:
    """The certificates agents are told to trust; None where there are none to tell.

    Raises:
        FatalError: the file cannot be read.
    """
    if path is None:
        return None
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise FatalError(f"The certificate authorities in {path} cannot be read.") from error


def _subject(claims: str) -> str | None:
    """The `sub` of a token's middle part."""
    try:
        subject = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["sub"]
    except (ValueError, KeyError, TypeError):
        return None
    return subject if isinstance(subject, str) else None
