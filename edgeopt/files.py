"""Files under final names: written whole or not at all, never over the user's own without a word."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from edgeopt.errors import ConfigError

try:
    import fcntl
except ImportError:  # no such locks outside Unix: there one process a folder has to do
    fcntl = None  # type: ignore[assignment]


def require_free(path: Path, *, force: bool, made_by_us: str | None = None) -> None:
    """Raises ConfigError when `path` exists and may not be overwritten.

    Args:
        path: the file or folder about to be written.
        force: the user's `--force`.
        made_by_us: for a folder: name of a marker file; one that holds it is our own earlier output and may be
            continued.
    """
    if made_by_us and path.exists() and not path.is_dir():
        raise ConfigError(f"Expected a folder to write into, got {path}, which is a file. Try another name.")
    if force or not path.exists():
        return
    if path.is_dir():
        if not any(path.iterdir()) or (made_by_us and (path / made_by_us).exists()):
            return
        raise ConfigError(
            f"Expected an empty output folder, got {path}, which holds files that edgeopt did not write. "
            "Try another folder, or --force to write into this one."
        )
    raise ConfigError(f"{path} exists already. Try another name, or --force to overwrite it.")


def require_writable(path: Path) -> None:
    """Raises ConfigError when nothing can be written at `path`: before the work, where it would only show after it."""
    nearest = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise ConfigError(f"Could not write {path}: {error.strerror or error}. Try another output path.") from error


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` that becomes `path` on success and vanishes on any failure.

    Raises:
        ConfigError: the folder cannot be written, or the disk is full. Errors of other files pass as they are.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        if temporary.is_file():
            temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None and not _is_about(error, temporary):
            raise
        raise ConfigError(f"Could not write {path}: {error.strerror or error}. Try another output path.") from error
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink()


def _is_about(error: OSError, written: Path) -> bool:
    """Whether an error is one of writing a file: it names that, or what is in it, or lacks room, or names none."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    named = [Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    if named:
        return any(name.is_relative_to(written) for name in named)
    return not isinstance(error, ConnectionError | TimeoutError | ChildProcessError)


def atomic_write(path: Path, content: bytes | str) -> None:
    """Writes `content` to `path` so that a reader sees the old file or the whole new one, never a part."""
    data = content.encode() if isinstance(content, str) else content
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def locked(path: Path, *, busy: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Holds a lock that other processes wait for; it goes with the process, however that ends.

    `busy` is called before a wait for whoever holds it. Nothing is left of it afterwards, not even the folders that
    were made for it, where nothing came to lie in them.
    """
    made = [folder for folder in path.parents if not folder.exists()]
    file = _lock(path, busy)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _lock(path: Path, busy: Callable[[], object]) -> IO[str]:
    """Returns a file under this very name that is locked: who held it before may have removed it meanwhile."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            file = path.open("a")
            if fcntl is None:
                return file
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                busy()
                fcntl.flock(file, fcntl.LOCK_EX)
            if _is(file, path):
                return file
            file.close()


def _is(file: IO[str], path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def link(source: Path, path: Path) -> None:
    """Gives a file, or the files of a folder, a second name; what had that name before is gone."""
    with atomic_path(path) as temporary:
        temporary.unlink()
        if source.is_dir():
            shutil.copytree(source, temporary, copy_function=_linked)
            if path.is_dir():
                shutil.rmtree(path)  # a folder takes the place of an empty name only
        else:
            _linked(source, temporary)


def _linked(source: Path | str, path: Path | str) -> None:
    try:
        os.link(source, path)
    except OSError:  # a file system without them, or another one
        shutil.copyfile(source, path)


@contextlib.contextmanager
def temporary(content: bytes, name: str) -> Iterator[Path]:
    """Yields a file called `name` that holds `content`, for what reads files alone; it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        file = Path(folder) / name
        file.write_bytes(content)
        yield file


def sha256(path: Path, *, of_file: Callable[[Path], str] | None = None) -> str:
    """Returns the SHA-256 of a file, or of a folder's relative names and contents in sorted order, as hex.

    Args:
        path: the file or folder.
        of_file: what hashes each file of a folder; `sha256` if None.
    """
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(f"{file.relative_to(path).as_posix()}\0{(of_file or sha256)(file)}\0".encode())
        return digest.hexdigest()
    with path.open("rb") as content:
        while chunk := content.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


# By path, device, inode, size and times of the last change.
_known: dict[tuple[str, int, int, int, int, int], str] = {}
# A file may change twice within one tick of a file system's clock, and two seconds is the slowest of them (FAT).
_TICK_NS = 2_000_000_000


def sha256_once(path: Path) -> str:
    """As `sha256`, but for a file that this process has hashed before and nobody has touched since: by its inode,
    size and times, of which a program cannot set that of the last change.
    """
    if path.is_dir():
        return sha256(path, of_file=sha256_once)
    found = path.stat()
    key = (str(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    if key not in _known:
        digest = sha256(path)
        if time.time_ns() - found.st_ctime_ns < _TICK_NS:
            return digest
        _known[key] = digest
    return _known[key]


def gzip_size(content: bytes) -> int:
    """Returns the bytes that `content` takes after gzip at its highest level: what a download of it costs."""
    return len(gzip.compress(content, compresslevel=9, mtime=0))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
