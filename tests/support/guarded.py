"""A real Valkey with our users, their rights and their passwords."""

import tempfile
from pathlib import Path

from tests.support.valkey import Valkey

from quickcomm.kernel.messaging.bus.redis_address import PASSWORD_FILE, USER
from quickcomm.operate.up.access import Passwords, acl


class Guarded:
    """A server with our rules; `url` gives a user's address."""

    def __init__(self, folder: Path) -> None:
        self.passwords = Passwords(folder / "passwords")
        rules = folder / "users.acl"
        rules.write_text(acl(self.passwords.ensure()))
        self.socket = Path(tempfile.mkdtemp(prefix="qc-")) / "valkey.sock"  # short: a socket's path has little room
        self.valkey = Valkey(folder / "valkey", aclfile=str(rules), unixsocket=str(self.socket))

    def url(self, user: str = USER) -> str:
        return f"redis://{user}@127.0.0.1:{self.valkey.port}?{PASSWORD_FILE}={self.passwords.file(user)}"
