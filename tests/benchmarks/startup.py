"""How long `import converter` and `ckconv --version` take, as multiples of `import numpy`."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 15
PROGRAMS = {
    "import numpy": ["-c", "import numpy"],
    "import converter": ["-c", "import converter"],
    "import converter, its functions used": ["-c", "import converter; converter.convert"],
    "ckconv --version": ["-m", "converter", "--version"],
}


def seconds(arguments: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(ROUNDS):
        for name, arguments in PROGRAMS.items():
            times[name].append(seconds(arguments))
    unit = statistics.median(times["import numpy"])
    for name, measured in times.items():
        print(f"{name:<40} {statistics.median(measured) / unit:5.2f} x import numpy")


if __name__ == "__main__":
    main()
