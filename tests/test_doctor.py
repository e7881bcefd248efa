"""What the doctor says of this machine, and of broken ones."""

from __future__ import annotations

import platform
import sys

import pytest

from edgeopt import doctor, workers
from edgeopt.doctor import Tool
from edgeopt.frameworks import FRAMEWORKS, Framework
from edgeopt.runtimes import RUNTIMES


def test_the_whole_machine():
    found = doctor.examine()
    by_kind = {kind: [row for row in found if row.kind == kind] for kind in ("python", "package", "runtime", "tool")}
    assert [row.name for row in by_kind["runtime"]] == list(RUNTIMES)
    assert {row.name for row in by_kind["package"]} == {framework.distribution for framework in FRAMEWORKS.values()}
    assert [row.name for row in by_kind["tool"]] == list(doctor.TOOLS)
    (python,) = by_kind["python"]
    assert python.version == ".".join(map(str, sys.version_info[:3]))
    assert "NumPy" in python.detail
    for row in found:
        assert row.works or (row.detail and row.hint), row
    tensorflow = next(row for row in by_kind["package"] if row.name == "tensorflow")
    assert tensorflow.works
    assert tensorflow.seconds > 0
    litert = next(row for row in by_kind["runtime"] if row.name == "litert")
    assert litert.works
    assert litert.detail.endswith("ran a model")


def test_a_package_that_is_not_here(monkeypatch):
    monkeypatch.setitem(FRAMEWORKS, "absent", Framework("no_such_module", "no-such-distribution", extra="some"))
    with workers.Worker() as worker:
        row = doctor._package("absent", worker)
    assert (row.works, row.detail, row.hint) == (False, "not installed", "pip install 'edgeopt[some]'")


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        ("import os; os.abort()", "its import ends the process: abort"),
        ("raise ValueError('built for another machine')", "ValueError: built for another machine"),
        ("import no_such_module", "No module named 'no_such_module'"),
    ],
)
def test_a_broken_package_is_a_row(tmp_path, monkeypatch, content, detail):
    """Another scikit-learn, which stands first on the path of the process that imports it."""
    (tmp_path / "sklearn.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    with workers.Worker() as worker:
        row = doctor._package("sklearn", worker)
    assert not row.works
    assert detail in row.detail
    assert row.hint.startswith("pip install 'scikit-learn'")


def test_tools(monkeypatch, tmp_path):
    broken = tmp_path / "broken-tool"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(
        doctor,
        "TOOLS",
        {
            "python": Tool((sys.executable,), "this test", "python3"),
            "absent": Tool(("no-such-tool",), "nothing", "no-package"),
            "broken": Tool(("broken-tool",), "nothing", "its-package"),
        },
    )
    here, absent, broken_row = doctor._tools()
    assert here.works
    assert here.version == platform.python_version()
    assert (absent.works, absent.detail) == (False, "not found; for nothing")
    assert absent.hint == "apt-get install no-package"
    assert not broken_row.works
    assert "does not run" in broken_row.detail


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("cc (Debian 12.2.0-14+deb12u1) 12.2.0", "12.2.0"),
        ("cmake version 3.25.1", "3.25.1"),
        ("arm-none-eabi-gcc (15:12.2.rel1-1) 12.2.1 20221205", "12.2.1"),
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)", "7.2.22"),
        ("a tool without one", "a tool without one"),
    ],
)
def test_the_version_in_what_a_tool_says(line, version):
    assert doctor._version_in(line) == version
