"""Stands in for adb: answers from files in $STAND_IN_ADB, and keeps what was pushed in its folder `device`.

devices: what `adb devices` prints after its first line. output: what benchmark_model prints, with its exit status in
the first line. vanish: present when the device goes away as benchmark_model runs. log: the commands, written here.
"""

import os
import re
import shutil
import sys
from pathlib import Path

home = Path(os.environ["STAND_IN_ADB"])
words = sys.argv[1:]
with (home / "log").open("a") as log:
    log.write(" ".join(words) + "\n")
if words == ["devices"]:
    print("* daemon started successfully *\nList of devices attached\n" + (home / "devices").read_text())
    sys.exit()
if words[:1] != ["-s"]:
    sys.exit("unknown command")
serial, command, *rest = words[1:]
if (home / "gone").exists():
    sys.exit(f"adb: device '{serial}' not found")
if command == "get-state":
    print("device")
elif command == "push":
    target = home / ("device" + rest[1])
    shutil.copyfile(rest[0], target)
    print(f"{rest[0]}: 1 file pushed, 0 skipped.")
elif rest[0].startswith("getprop"):
    names = {"ro.product.model": "Pixel 8\x1b[31m", "ro.build.version.release": "15", "ro.product.cpu.abi": "arm64-v8a"}
    print(names[rest[0].split()[1]])
elif rest[0].startswith("mkdir"):
    (home / ("device" + rest[0].split()[1])).mkdir(parents=True)
elif rest[0].startswith("rm -rf"):
    shutil.rmtree(home / ("device" + rest[0].split()[2]))
elif "/benchmark_model --graph=" in rest[0]:
    if (home / "vanish").exists() and (home / "vanish").read_text() in ("", *re.findall(r"use_gpu", rest[0])):
        (home / "gone").touch()
        sys.exit(255)
    output = home / ("output.gpu" if "--use_gpu=true" in rest[0] else "output")
    status, _, text = output.read_text().partition("\n")
    sys.stderr.write(text)
    sys.exit(int(status))
