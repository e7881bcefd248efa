"""Worker processes: results, errors, progress, crashes, limits and their end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from edgeopt import progress, workers
from edgeopt.errors import ConfigError


def test_a_result_comes_back() -> None:
    with workers.Worker() as worker:
        assert worker.call("math:sqrt", 9.0) == 3.0


def test_our_errors_come_back_as_they_are() -> None:
    with workers.Worker() as worker, pytest.raises(ConfigError, match="Expected a quantization scheme, got 'int7'"):
        worker.call("edgeopt.schemes:scheme", "int7")


def test_other_errors_are_defects_with_the_workers_traceback() -> None:
    with workers.Worker() as worker, pytest.raises(workers.WorkerDefect, match="ValueError: math domain error"):
        worker.call("math:sqrt", -1.0)


def of_several_lines() -> None:
    raise ValueError("Exception encountered when calling Dense.\n\n  what was wrong\n\nArguments received:\n  * inputs")


def test_a_defect_of_several_lines_is_told_whole() -> None:
    with workers.Worker() as worker, pytest.raises(workers.WorkerDefect, match="Traceback") as raised:
        worker.call("test_workers:of_several_lines")
    words = "Exception encountered when calling Dense. what was wrong Arguments received: * inputs"
    assert raised.value.gist == f"ValueError: {words}"


def test_errors_of_files_come_back_as_such() -> None:
    """The command line says which file, and calls nobody's defect what is none."""
    with workers.Worker() as worker, pytest.raises(FileNotFoundError, match="No such file") as raised:
        worker.call("os:listdir", "/no/such/folder")
    assert raised.value.filename == "/no/such/folder"


def test_a_crash_says_what_it_was_and_the_next_call_works() -> None:
    with workers.Worker() as worker:
        with pytest.raises(workers.WorkerCrashed, match="abort"):
            worker.call("os:abort")
        with pytest.raises(workers.WorkerCrashed, match="segmentation fault"):
            worker.call("faulthandler:_sigsegv")
        assert worker.call("math:sqrt", 4.0) == 2.0


def test_last_words_are_kept() -> None:
    with workers.Worker() as worker, pytest.raises(workers.WorkerCrashed) as caught:
        worker.call("subprocess:run", ["sh", "-c", "echo the reason >&2; echo INFO: Created it. >&2; kill -9 $PPID"])
    assert "killed" in caught.value.reason
    assert caught.value.log == "the reason"


def test_a_worker_that_was_begun_has_imported_already() -> None:
    workers.begin("trying", "this:nothing")
    begun = workers._begun["trying"]
    workers.begin("trying", "math:sqrt")  # the process is there already
    process = begun._process
    assert process is not None
    with workers.Worker("running") as other, workers.Worker("trying") as worker:
        assert other.call("os:getpid") != process.pid
        assert worker.call("os:getpid") == process.pid
        assert worker.call("test_workers:imported_modules") >= {"this"}


def test_a_begun_worker_that_died_is_not_taken_over() -> None:
    workers.begin("trying", "os:abort")
    process = workers._begun["trying"]._process
    assert process is not None
    process.wait()
    with workers.Worker("trying") as worker:
        assert worker.call("math:sqrt", 4.0) == 2.0


def imported_modules() -> set[str]:
    """Returns the names of what was imported here."""
    return set(sys.modules)


def chatter(news_a_second: float, seconds: float = 60) -> None:
    """Tells of itself all the time."""
    for done in range(int(news_a_second * seconds)):
        progress.tell("chattering", done)
        time.sleep(1 / news_a_second)


def grown(size_bytes: int) -> None:
    """Takes memory and goes on talking."""
    kept = bytearray(b"1") * size_bytes
    chatter(1000)
    kept.clear()


def grown_in_a_child(size_bytes: int) -> None:
    """Lets a process of its own take memory."""
    code = f"import time; x = bytearray(b'1') * {size_bytes}; time.sleep(60)"
    subprocess.run([sys.executable, "-c", code], check=True)


def started_child() -> int:
    """Returns the process id of a child that would live on."""
    return subprocess.Popen(["sleep", "60"]).pid


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("what", [("time:sleep", 60), ("test_workers:chatter", 1000)], ids=["silent", "talking"])
def test_time_limit_counts_from_the_call_whatever_is_told_meanwhile(what: tuple[str, float]) -> None:
    with workers.Worker(limits=workers.Limits(1.5, 10**10)) as worker:
        start = time.monotonic()
        with pytest.raises(workers.WorkerCrashed, match=r"took longer than 1\.5 s, which EDGEOPT_WORKER_TIME_S"):
            worker.call(*what)
        assert 1.5 < time.monotonic() - start < 10
        with pytest.raises(workers.WorkerCrashed, match=r"took longer than 0\.5 s"):
            worker.call(*what, timeout_s=0.5)


@pytest.mark.parametrize("function", ["grown", "grown_in_a_child"])
def test_memory_limit_is_of_all_that_the_worker_started_also_while_it_talks(function: str) -> None:
    with (
        workers.Worker(limits=workers.Limits(60, 400_000_000)) as worker,
        pytest.raises(workers.WorkerCrashed, match=r"took more than 0\.4 GB of memory, which EDGEOPT_WORKER_MEMORY_GB"),
    ):
        worker.call(f"test_workers:{function}", 600_000_000)


def test_every_kind_of_work_has_limits_and_the_environment_can_change_them(monkeypatch: pytest.MonkeyPatch) -> None:
    machine_bytes = psutil.virtual_memory().total
    for kind in workers.LIMITS:
        limits = workers.limits_of(kind)
        assert (limits.seconds is None) == (kind in ("training", "trials"))
        assert 0 < limits.memory_bytes <= 0.9 * machine_bytes
    monkeypatch.setenv("EDGEOPT_WORKER_TIME_S", "7")
    monkeypatch.setenv("EDGEOPT_WORKER_MEMORY_GB", "1.5")
    assert workers.limits_of("training") == workers.Limits(7.0, 1_500_000_000)
    monkeypatch.setenv("EDGEOPT_WORKER_TIME_S", "an hour")
    with pytest.raises(ConfigError, match="Expected a positive number in EDGEOPT_WORKER_TIME_S, got 'an hour'"):
        workers.Worker()


@pytest.mark.parametrize("error", [ValueError("the sink's own"), BrokenPipeError(), KeyboardInterrupt()])
def test_a_sink_that_raises_does_not_leave_its_answer_to_the_next_call(error: BaseException) -> None:
    def raises(news: progress.News) -> None:
        raise error

    with workers.Worker() as worker:
        with progress.listening(raises), pytest.raises(type(error)):
            worker.call("test_workers:chatter", 100, 0.1)
        assert worker.call("math:sqrt", 9.0) == 3.0


def test_ctrl_c_in_a_call_leaves_nothing_to_the_next_one() -> None:
    with workers.Worker() as worker:
        first = worker.call("os:getpid")
        timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            worker.call("time:sleep", 60)
        assert gone(first)
        assert worker.call("math:sqrt", 9.0) == 3.0


def test_what_cannot_be_sent_leaves_the_worker_usable() -> None:
    with workers.Worker() as worker:
        with pytest.raises(AttributeError, match="pickle"):
            worker.call("math:sqrt", lambda: None)
        with pytest.raises(workers.WorkerDefect, match="pickle"):
            worker.call("threading:Lock")
        assert worker.call("math:sqrt", 9.0) == 3.0


def test_what_a_worker_started_ends_with_it() -> None:
    with workers.Worker() as worker:
        child = worker.call("test_workers:started_child")
    assert gone(child)


def test_objects_stay_in_the_worker() -> None:
    with workers.Worker() as worker:
        counter = worker.create("collections:Counter", "abracadabra")
        assert counter.call("most_common", 1) == [("a", 5)]
        assert counter.call("total") == 11


def test_progress_is_passed_on() -> None:
    heard: list[progress.News] = []
    with workers.Worker() as worker, progress.listening(heard.append):
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
