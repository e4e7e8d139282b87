"""Enrolments and agents' credentials: NATS users of a cluster's own account.

An enrolment's user lives long and may do one thing: ask for a working credential. That
one may do an agent's work, is bound to a key that the agent makes for itself, and ends
after a while. Both are signed by keys of the cluster's account that fix these rights;
the enrolment's key is thrown away as soon as it has signed, the agents' key is kept
sealed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from streamspace_auth.domain.accounts import invalid
from streamspace_auth.ports import ClusterAccess, EnrolledCluster, MintedEnrolment
from streamspace_auth.sealing import Seal, SealError
from streamspace_common.bus import credentials
from streamspace_common.bus.accounts import Authority
from streamspace_common.bus.credentials import Issuer
from streamspace_common.bus.identity import Identity
from streamspace_common.bus.signing import KeyKind, is_public_key, new_seed, public_key
from streamspace_common.contracts.clusters import Enrolment
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.runtime.supervisor import FatalError


@dataclass(frozen=True)
class Place:
    """Where agents find the control plane: NATS, and the relay they dial tunnels back to."""

    nats_urls: tuple[str, ...]
    tunnel_url: str


class NatsEnroller:
    """Implements `ports.Enroller`.

    Args:
        seal: keeps the agents' signing keys.
        place: where agents find the control plane.
        places: clusters whose agents find it elsewhere: on its own machine, for instance.
        certificate_authorities: what agents trust there besides their system's own (PEM).
    """

    def __init__(
        self,
        seal: Seal,
        *,
        place: Place,
        places: Mapping[ClusterId, Place] | None = None,
        certificate_authorities: str | None = None,
    ) -> None:
        self._seal = seal
        self._place = place
        self._places = dict(places or {})
        self._authorities = certificate_authorities

    def mint(self, cluster_id: ClusterId, now: datetime, *, account: str | None) -> MintedEnrolment:
        # Nothing is signed by an account's own key, so nobody keeps that.
        account = account or public_key(new_seed(KeyKind.ACCOUNT))
        joining, agents = new_seed(KeyKind.ACCOUNT), new_seed(KeyKind.ACCOUNT)
        user = Identity.fresh()
        user.token = credentials.mint_scoped_user(
            Issuer(account=account, signing_seed=joining),
            user.public_key,
            f"join-{cluster_id}",
            issued_at=now,
        )
        place = self._places.get(cluster_id, self._place)
        enrolment = Enrolment(
            cluster_id=cluster_id,
            nats_urls=place.nats_urls,
            credentials=credentials.creds(user.token, user.seed),
            tunnel_url=place.tunnel_url,
            certificate_authorities=self._authorities,
        )
        key = public_key(agents)
        return MintedEnrolment(
            enrolment=enrolment,
            credential=user.public_key,
            issuer=public_key(joining),
            access=ClusterAccess(
                account, key, self._seal.close(agents.encode(), _context(cluster_id, key))
            ),
        )

    def agent_token(
        self, cluster: EnrolledCluster, user: str, now: datetime, expires_at: datetime
    ) -> str:
        if not is_public_key(user, KeyKind.USER):
            raise invalid("publicKey", "This is not the public key of a NATS user.")
        if cluster.access is None:
            raise AssertionError("whoever asks has an account")
        access = cluster.access
        try:
            seed = self._seal.open(
                access.sealed_agents_seed, _context(cluster.id, access.agents_key)
            )
        except SealError as error:
            raise FatalError(
                f"The key of cluster {cluster.id} cannot be opened: {error}. Set "
                "STREAMSPACE_AUTH_ENCRYPTION_KEY to the key this database was used with. If it is "
                "lost, enrol the cluster again."
            ) from None
        return credentials.mint_scoped_user(
            Issuer(account=access.account, signing_seed=seed.decode()),
            user,
            f"agent-{cluster.id}",
            issued_at=now,
            expires_at=expires_at,
        )

    def user_of(self, enrolment: Enrolment) -> str | None:
        try:
            return Identity.from_creds(enrolment.credentials).public_key
        except ValueError:
            return None

    def relocated(self, enrolment: Enrolment) -> Enrolment:
        place = self._places.get(enrolment.cluster_id, self._place)
        return enrolment.model_copy(
            update={
                "nats_urls": place.nats_urls,
                "tunnel_url": place.tunnel_url,
                "certificate_authorities": self._authorities,
            }
        )


def _context(cluster_id: ClusterId, key: str) -> str:
    return f"cluster:{cluster_id}:{key}"


def read_authority(path: Path) -> Authority:
    """What lets clusters in, as a file holds it.

    Raises:
        FatalError: it is missing or is something else; the text does not quote it.
    """
    try:
        authority = Authority.from_json(path.read_bytes())
        public_key(authority.operator_signing_seed)
        public_key(authority.activation_seed)
    except OSError as error:
        raise FatalError(
            f"STREAMSPACE_AUTH_BUS_AUTHORITY_FILE: {path} cannot be read: {error.strerror}."
        ) from None
    except (ValidationError, ValueError):
        raise FatalError(
            f"STREAMSPACE_AUTH_BUS_AUTHORITY_FILE: {path} does not hold the bus' authority, which "
            "the command that makes an installation's secrets writes."
        ) from None
    return authority


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
