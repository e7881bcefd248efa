"""Worker processes: results, errors, progress, crashes, limits and their end."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest

from edgeopt import progress, workers
from edgeopt.errors import ConfigError


def test_a_result_comes_back() -> None:
    with workers.fresh() as worker:
        assert worker.call("math:sqrt", 9.0) == 3.0


def test_our_errors_come_back_as_they_are() -> None:
    with workers.fresh() as worker, pytest.raises(ConfigError, match="Expected a quantization scheme, got 'int7'"):
        worker.call("edgeopt.schemes:scheme", "int7")


def test_other_errors_are_defects_with_the_workers_traceback() -> None:
    with workers.fresh() as worker, pytest.raises(workers.WorkerDefect, match="ValueError: math domain error"):
        worker.call("math:sqrt", -1.0)


def test_a_crash_says_what_it_was_and_the_next_call_works() -> None:
    with workers.fresh() as worker:
        with pytest.raises(workers.WorkerCrashed, match="abort"):
            worker.call("os:abort")
        with pytest.raises(workers.WorkerCrashed, match="segmentation fault"):
            worker.call("faulthandler:_sigsegv")
        assert worker.call("math:sqrt", 4.0) == 2.0


def test_last_words_are_kept() -> None:
    with workers.fresh() as worker, pytest.raises(workers.WorkerCrashed) as caught:
        worker.call("subprocess:run", ["sh", "-c", "echo the reason >&2; kill -9 $PPID"])
    assert "killed" in caught.value.reason
    assert "the reason" in caught.value.log


def test_time_limit() -> None:
    with workers.fresh() as worker, pytest.raises(workers.WorkerCrashed, match=r"took longer than 0\.5 s"):
        worker.call("time:sleep", 60, timeout_s=0.5)


def test_memory_limit() -> None:
    with (
        workers.Worker(memory_limit_bytes=200_000_000) as worker,
        pytest.raises(workers.WorkerCrashed, match=r"took more than 0\.2 GB of memory"),
    ):
        worker.call("builtins:exec", "import time; x = bytearray(b'1') * 400_000_000; time.sleep(60)")


def test_objects_stay_in_the_worker() -> None:
    with workers.fresh() as worker:
        counter = worker.create("collections:Counter", "abracadabra")
        assert counter.call("most_common", 1) == [("a", 5)]
        assert counter.call("total") == 11


def test_progress_is_passed_on() -> None:
    heard: list[progress.Progress] = []
    with workers.fresh() as worker, progress.listening(heard.append):
        worker.call("edgeopt.progress:tell", "counting", 1, 2)
    assert heard == [progress.Progress("counting", 1, 2)]


def test_a_worker_ends_with_its_parent() -> None:
    code = (
        "from edgeopt import workers\n"
        "w = workers.Worker(); print(w.call('os:getpid'), flush=True)\n"
        "w.call('time:sleep', 60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not psutil.pid_exists(worker)


def test_a_users_script_is_not_run_again(tmp_path) -> None:
    script = tmp_path / "script.py"
    script.write_text("print('once')\nfrom edgeopt import workers\nprint(workers.Worker().call('math:sqrt', 4.0))\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["once", "2.0"]
