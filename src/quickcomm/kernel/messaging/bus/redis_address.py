"""The address of a Valkey or Redis server: who we are there, how that is proved, and how the connection is protected.

    redis://[user[:password]@]host:port/0      rediss://… with TLS      unix:///path/to/valkey.sock

After a `?`: `password_file` (read again at every connection, so that a password can be changed while we run), and with
`rediss://` `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`. `{user}` stands for the name of the service.
"""

from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

import msgspec
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError

from quickcomm.kernel.errors import ConfigurationError

SCHEMES: Final = ("redis", "rediss", "unix")
PASSWORD_FILE: Final = "password_file"  # noqa: S105 - the name of a parameter
FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
USER: Final = "{user}"


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """As redis-py takes it."""

    url: str
    options: dict[str, Any]

    def __repr__(self) -> str:
        return "Address(…)"


class PasswordFileError(AuthenticationError):
    """The file with the password is not there (yet), or not for us to read."""


class FilePassword(CredentialProvider):
    def __init__(self, user: str, file: Path) -> None:
        self._user = user
        self._file = file

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Raises `PasswordFileError`."""
        try:
            password = self._file.read_text().strip()
        except (OSError, ValueError):
            raise PasswordFileError(f"The password of the store cannot be read from {self._file}.") from None
        return (self._user, password) if self._user else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()


def for_user(url: str, user: str) -> str:
    """The address for a service of that name."""
    return url.replace(USER, quote(user)).replace(quote(USER), quote(user))


def parse(url: str) -> Address:
    """Raises `ConfigurationError`; a password is not in it."""
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise _wrong("it cannot be read") from None
    if parts.scheme not in SCHEMES:
        raise _wrong("it begins with none of redis://, rediss:// and unix://")
    files = [Path(value) for name, value in query if name in FILES]
    if files and parts.scheme != "rediss":
        raise _wrong("certificates are for rediss:// only")
    if missing := [str(path) for path in files if not path.is_file()]:
        raise _wrong(f"there is no file {missing[0]}")
    password_file = dict(query).get(PASSWORD_FILE)
    if password_file is None:
        return Address(url=url, options={})
    if parts.password:
        raise _wrong("it has both a password and a password_file")
    rest = urlencode([(name, value) for name, value in query if name != PASSWORD_FILE])
    where = parts.netloc.rpartition("@")[2]
    bare = urlunsplit(parts._replace(netloc=where, query=rest))
    if parts.scheme == "unix":
        bare = f"unix://{where}{parts.path}{f'?{rest}' if rest else ''}"
    given = FilePassword(unquote(parts.username or ""), Path(password_file))
    return Address(url=bare, options={"credential_provider": given})


def _wrong(why: str) -> ConfigurationError:
    return ConfigurationError(f"Not the address of a Valkey or Redis server: {why}. See docs/settings.md, redis_url.")
