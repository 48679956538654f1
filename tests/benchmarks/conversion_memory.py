"""What memory a conversion to a target that runs takes, in multiples of the weights, above that of the frameworks.

A random BERT-base (12 layers, made from its config) is converted to a SavedModel and to ONNX, outputs verified. The
figure is the peak, over time, of the memory of `ckconv` and all its child processes together (PSS, sampled), less that
of the same conversion of a BERT of a hundredth of the size, which is what the frameworks take for themselves. At most
2.5 is wanted; the script ends with status 1 above it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

WANTED = 2.5
_INTERVAL_SECONDS = 0.05
_MAKE = """
import sys, transformers
small = dict(hidden_size=64, num_attention_heads=4, intermediate_size=128, vocab_size=1000, num_hidden_layers=12)
config = transformers.BertConfig(**(small if sys.argv[2] == "small" else {}))
transformers.BertModel(config).save_pretrained(sys.argv[1])
"""
_TARGETS = {"savedmodel": "out", "onnx": "out.onnx"}


def tree_bytes(root: int) -> int:
    """Return the memory of a process and its descendants, shared pages divided among those that share them."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
    members, total = {root}, 0
    while more := {process for process, parent in parents.items() if parent in members} - members:
        members |= more
    for process in members:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
    return total


def peak_bytes(command: list[str]) -> int:
    """Run a command and return the peak of `tree_bytes`."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, tree_bytes(process.pid))
        time.sleep(_INTERVAL_SECONDS)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed with {process.returncode}")
    return peak


def main() -> None:
    worst = 0.0
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        for size in ("small", "base"):
            subprocess.run([sys.executable, "-c", _MAKE, f"{folder}/{size}", size], check=True, capture_output=True)
        weights = Path(folder, "base", "model.safetensors").stat().st_size
        for target, name in _TARGETS.items():
            peaks = {}
            for size in ("small", "base"):
                command = [sys.executable, "-m", "converter", f"{folder}/{size}", f"{folder}/{size}-{name}"]
                peaks[size] = peak_bytes([*command, "--to", target, "--no-fsync", "-q"])
            ratio = (peaks["base"] - peaks["small"]) / weights
            worst = max(worst, ratio)
            print(
                f"{target}: {ratio:.2f} x the weights ({weights >> 20} MiB) above the frameworks' own "
                f"({peaks['base'] >> 20} - {peaks['small'] >> 20} MiB); at most {WANTED}"
            )
    if worst > WANTED:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
