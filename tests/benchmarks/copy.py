"""How long a conversion takes and what memory it needs, beside `cp` and torch.load + safetensors' save_file.

Tensors are copied as they are, or all transposed, by one thread or two.

A .pth of 1 GiB in 64 tensors is made in the folder given, or in a temporary one. Every figure is a ratio to `cp` in the
same run; the rounds alternate, so that all see the same state of the machine.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 5
TENSORS, ROWS = 64, 4096
_MAKE = f"""
import sys, torch
torch.save({{f"layer.{{n}}.weight": torch.full(({ROWS}, 1024), float(n)) for n in range({TENSORS})}}, sys.argv[1])
"""
_TRANSPOSE = '{"rules": [{"from": "layer.{n}.weight", "to": "turned.{n}.weight", "layout": "transpose"}]}'
_TORCH = "import sys, torch; from safetensors.torch import save_file; save_file(torch.load(sys.argv[1]), sys.argv[2])"


def run(command: list[str]) -> tuple[float, int]:
    """Return seconds and the peak memory of the command in MiB."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{command[0]} failed with {process.returncode}")
    return time.perf_counter() - began, usage.ru_maxrss >> 10


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        source, target = Path(folder, "x.pth"), Path(folder, "y.safetensors")
        subprocess.run([sys.executable, "-c", _MAKE, source], check=True)
        ckconv = [sys.executable, "-m", "converter", str(source), str(target), "--no-fsync"]
        rules = Path(folder, "rules.json")
        rules.write_text(_TRANSPOSE)
        transposing = [*ckconv, "--mapping", str(rules)]
        programs = {
            "cp": ["cp", str(source), str(target)],
            "ckconv --verify none": [*ckconv, "--verify", "none"],
            "ckconv": ckconv,
            "ckconv, transposing": transposing,
            "ckconv, transposing, --jobs 2": [*transposing, "--jobs", "2"],
            "torch.load + save_file": [sys.executable, "-c", _TORCH, str(source), str(target)],
        }
        times: dict[str, list[float]] = {name: [] for name in programs}
        peaks: dict[str, int] = {}
        for _ in range(ROUNDS):
            for name, command in programs.items():
                target.unlink(missing_ok=True)
                elapsed, peak = run(command)
                times[name].append(elapsed)
                peaks[name] = max(peak, peaks.get(name, 0))
        unit = statistics.median(times["cp"])
        print(f"{source.stat().st_size >> 20} MiB")
        for name, measured in times.items():
            print(f"{name:<30} {statistics.median(measured) / unit:6.2f} x cp   peak {peaks[name]:5} MiB")


if __name__ == "__main__":
    main()
