"""Files under final names: whole or not at all, never over the user's own."""

from __future__ import annotations

import gzip
import hashlib
import os
import threading
from pathlib import Path

import pytest

from edgeopt import files
from edgeopt.errors import ConfigError, suggestion


def test_a_failure_leaves_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "model.tflite"
    target.write_bytes(b"before")

    def fail() -> None:
        with files.atomic_path(target) as temporary:
            temporary.write_bytes(b"hal")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail()
    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "model.tflite"

    def fill() -> None:
        with files.atomic_path(target) as temporary, Path("/dev/full").open("wb") as full:
            temporary.write_bytes(b"x")
            full.write(b"x" * 100_000)

    with pytest.raises(ConfigError, match=r"Could not write .*No space left on device.*Try another output path"):
        fill()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "blamed"),
    [
        (FileNotFoundError(2, "No such file or directory", "labels.csv"), False),
        (BrokenPipeError(32, "Broken pipe"), False),
        (OSError(28, "No space left on device", "copied.bin"), True),  # as copying it says
        (OSError("unable to write the header"), True),  # as h5py says
    ],
)
def test_an_error_of_another_file_is_not_one_of_the_output(error: OSError, blamed: bool, tmp_path: Path) -> None:
    def fail() -> None:
        with files.atomic_path(tmp_path / "out.npy"):
            raise error

    with pytest.raises(
        ConfigError if blamed else OSError, match="out.npy" if blamed else str(error.args[-1])
    ) as raised:
        fail()
    assert (raised.value.__cause__ or raised.value) is error
    assert not any(tmp_path.iterdir())


def test_a_file_in_a_folder_that_is_written_is_the_output(tmp_path: Path) -> None:
    def fail() -> None:
        with files.atomic_path(tmp_path / "saved") as temporary:
            temporary.unlink()
            (temporary / "part").write_text("there is no such folder")

    with pytest.raises(ConfigError, match=r"Could not write .*saved: No such file or directory"):
        fail()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigError, match=r"Could not write .*Try another output path"):
        files.atomic_write(tmp_path / "file" / "out.json", "{}")


def test_nothing_of_the_users_is_overwritten(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.tflite"
    theirs.write_bytes(b"theirs")
    with pytest.raises(ConfigError, match=r"exists already.*--force"):
        files.require_free(theirs, force=False)
    files.require_free(theirs, force=True)
    with pytest.raises(ConfigError, match=r"holds files that edgeopt did not write.*--force"):
        files.require_free(tmp_path, force=False, made_by_us=".edgeopt")
    (tmp_path / ".edgeopt").mkdir()
    files.require_free(tmp_path, force=False, made_by_us=".edgeopt")
    for force in (False, True):
        with pytest.raises(ConfigError, match=r"Expected a folder to write into, got .*, which is a file. Try another"):
            files.require_free(theirs, force=force, made_by_us=".edgeopt")


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert files.sha256(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    before = files.sha256(tmp_path)
    (tmp_path / "b").write_bytes(b"")
    assert files.sha256(tmp_path) != before


def test_gzip_size_is_that_of_gzip() -> None:
    content = bytes(range(256)) * 40
    assert files.gzip_size(content) == len(gzip.compress(content, 9, mtime=0))


def test_suggestions() -> None:
    assert suggestion("int88", ["int8", "float16"]) == " Did you mean 'int8'?"
    assert suggestion("zzz", ["b", "a"]) == " Known: a, b."


def test_a_temporary_file_has_its_name_and_content_and_is_gone_afterwards():
    with files.temporary(b"content", "model.tflite") as file:
        assert (file.name, file.read_bytes()) == ("model.tflite", b"content")
    assert not file.parent.exists()


def test_a_file_that_nobody_touched_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_TICK_NS", 0)
    folder = tmp_path / "model"
    folder.mkdir()
    file = folder / "weights"
    file.write_bytes(b"first")
    before, of_folder = files.sha256_once(file), files.sha256_once(folder)
    assert (before, of_folder) == (files.sha256(file), files.sha256(folder))
    read: list[Path] = []
    monkeypatch.setattr(files, "sha256", lambda path, **_: read.append(path) or "read")
    assert files.sha256_once(file) == before
    assert read == []
    # Other bytes of the same number, with the time of the last change set back: the inode's own is none to be set.
    times = file.stat()
    file.write_bytes(b"other")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert files.sha256_once(file) == "read"


def test_a_file_that_may_change_within_a_tick_of_the_clock_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for content in (b"one", b"two"):
        file.write_bytes(content)
        assert files.sha256_once(file) == files.sha256(file)


def test_whoever_waits_for_a_lock_hears_of_it(tmp_path: Path) -> None:
    lock, waits, had = tmp_path / "made" / "one.lock", threading.Event(), []

    def second() -> None:
        with files.locked(lock, busy=waits.set):
            had.append(True)

    with files.locked(lock, busy=lambda: had.append(False)):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(20)
        assert had == []
    thread.join(20)
    assert had == [True]
