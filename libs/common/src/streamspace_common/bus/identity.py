"""A user of the bus that is held in memory, and may be given a newer token while connected.

Services read a `.creds` file at each connection. An agent's credential is renewed every
few hours and need not be written anywhere: its key is made in the process that uses it.
"""

import base64

import nkeys

from streamspace_common.bus.credentials import read_creds
from streamspace_common.bus.signing import KeyKind, new_seed, public_key


class Identity:
    """A user's key and its current token.

    Args:
        seed: the user's private key; never leaves this process unless somebody asks for it.
        token: signed by an account's key; empty until there is one.
    """

    def __init__(self, seed: str, token: str = "") -> None:
        self.seed = seed
        self.token = token
        self.public_key = public_key(seed)

    @classmethod
    def fresh(cls) -> "Identity":
        """A new key, with no token yet."""
        return cls(new_seed(KeyKind.USER))

    @classmethod
    def from_creds(cls, text: str) -> "Identity":
        """The user of a `.creds` file.

        Raises:
            ValueError: it is none; the text does not quote it.
        """
        user = read_creds(text)
        return cls(user.seed, user.token)

    def answer(self, nonce: str) -> bytes:
        """Prove to a server that the key is ours; base64, as NATS wants it."""
        signed: bytes = nkeys.from_seed(bytearray(self.seed.encode())).sign(nonce.encode())
        return base64.b64encode(signed)

    def show(self) -> bytes:
        """The token, as NATS wants it."""
        return self.token.encode()
