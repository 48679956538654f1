"""The hash of a source, as b3sum or sha256sum would say it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from converter.errors import ReadError
from converter.execution.hashing import hashed, tensor_sha256
from converter.model.file import LocalFile
from converter.model.tensor import ArrayTensor


@pytest.mark.parametrize(("algorithm", "hash_of"), [("sha256", hashlib.sha256), ("blake3", blake3)])
def test_of_one_file_and_of_several(algorithm: str, hash_of: Callable[[bytes], Any], tmp_path: Path) -> None:
    for name, content in (("b", b"bees"), ("a", b"ants"), ("c", b"")):
        (tmp_path / name).write_bytes(content)
    files = [LocalFile(tmp_path / name) for name in ("b", "a", "c")]
    with hashed(files[:1], algorithm) as one, hashed(files, algorithm) as several, hashed([], algorithm) as none:
        assert one() == hash_of(b"bees").hexdigest()
        lines = sorted(f"{hash_of(file.read(0, file.size)).hexdigest()}  {file.path.name}\n" for file in files)
        assert several() == hash_of("".join(lines).encode()).hexdigest()
        assert none() == ""
    with hashed(list(reversed(files)), algorithm) as again:
        assert again() == several()


def test_a_file_that_shrinks_is_said_to_where_the_hash_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(100))
    file = LocalFile(path)
    assert file.size == 100
    path.write_bytes(b"")
    with hashed([file], "blake3") as digits, pytest.raises(ReadError):
        digits()


def test_of_a_tensor(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert tensor_sha256(ArrayTensor.of(array)) == hashlib.sha256(array.tobytes()).hexdigest()
    assert tensor_sha256(ArrayTensor.of(array).transpose((1, 0))) == hashlib.sha256(array.T.tobytes()).hexdigest()


def test_a_signal_that_another_thread_takes_is_held_back_too() -> None:
    program = (
        "import os, signal, threading, time\n"
        "from converter.execution.hashing import signals_held_back\n"
        "threading.Thread(target=time.sleep, args=(5,), daemon=True).start()\n"  # it blocks no signal
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "held = signal.getsignal(signal.SIGINT)\n"
        "try:\n"
        "    with signals_held_back():\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        time.sleep(0.2)\n"
        "        print('whole', flush=True)\n"
        "except KeyboardInterrupt:\n"
        "    print('then', signal.getsignal(signal.SIGINT) is held)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.stdout.split() == ["whole", "then", "True"], result.stderr
