"""A real nginx with the configuration of `deploy/nginx` before a server, with other addresses and time limits."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.certificates import Authority
from tests.support.ports import free_port

NGINX: Final = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
DEPLOYED: Final = Path(__file__).parents[2] / "deploy/nginx/quickcomm.conf"
HOST_LINE: Final = "proxy_set_header Host $http_host;"
STARTED_S: Final = 10.0
MAIN: Final = """
daemon off;
pid {root}/nginx.pid;
error_log {root}/error.log;
events {{}}
http {{
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/fastcgi;
    uwsgi_temp_path {root}/uwsgi;
    scgi_temp_path {root}/scgi;
    include {root}/quickcomm.conf;
}}
"""


@contextmanager
def nginx(root: Path, upstream: int, changes: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """Run nginx before `upstream`, a port; give its address and the authority that has signed its certificate.

    `changes`: lines of the configuration that are replaced.
    """
    assert NGINX is not None
    root.mkdir()
    authority, port = Authority(root / "authority"), free_port()
    pair = authority.issue("localhost", "127.0.0.1")
    text = DEPLOYED.read_text()
    changes = {
        "server 127.0.0.1:8080;": f"server 127.0.0.1:{upstream};",
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "/etc/ssl/certs/ops.example.com.pem": str(pair.certificate),
        "/etc/ssl/private/ops.example.com.key": str(pair.key),
        **changes,
    }
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (root / "quickcomm.conf").write_text(text)
    (root / "nginx.conf").write_text(MAIN.format(root=root))
    command = [NGINX, "-p", str(root), "-e", str(root / "error.log"), "-c", str(root / "nginx.conf")]
    process = subprocess.Popen(command)
    try:
        _until_up(process, port)
        yield f"https://127.0.0.1:{port}", authority.file
    finally:
        process.terminate()
        process.wait(STARTED_S)


def _until_up(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + STARTED_S
    while True:
        assert process.poll() is None, "nginx has ended."
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline, "nginx is not up."
        time.sleep(0.02)
