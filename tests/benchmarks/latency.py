"""How long a BERT-base forward takes on one thread, as multiples of torch's: our SavedModels, TFBert, onnxruntime.

    python -m tests.benchmarks.latency [--folder FOLDER] [--rounds 3]

Every engine runs in a process of its own, one after the other, round after round. What is measured is the processor
time of a call, which other work on the machine adds least to, and of it the least. TFBert is that of the second
environment (CKCONV_ORACLE_PYTHON), in a tf.function; the models are made from their config, and kept in FOLDER if one
is given.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
BATCHES = (1, 8)
LENGTH = 128
CALLS = {1: 12, 8: 4}
OURS = ("our SavedModel", "with --layout tensorflow")
TARGETS = {"torch": 0.75, "TFBert": 1.0}
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "TF_USE_LEGACY_KERAS": "1",
}


def _inputs(batch: int) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    return {
        "input_ids": generator.integers(0, 30000, (batch, LENGTH)).astype(np.int64),
        "attention_mask": np.ones((batch, LENGTH), np.int64),
        "token_type_ids": np.zeros((batch, LENGTH), np.int64),
    }


def _torch(folder: Path) -> Callable[[dict[str, Any]], Any]:
    import torch
    from transformers import BertModel

    torch.set_num_threads(1)
    model = BertModel.from_pretrained(folder / "pretrained").eval()

    def call(inputs: dict[str, Any]) -> Any:
        with torch.inference_mode():
            return model(**{name: torch.from_numpy(value) for name, value in inputs.items()}).last_hidden_state

    return call


def _saved_model(folder: Path, name: str = "saved_model") -> Callable[[dict[str, Any]], Any]:
    import tensorflow as tf

    function = tf.saved_model.load(str(folder / name)).signatures["serving_default"]
    return lambda inputs: function(**{name: tf.constant(value) for name, value in inputs.items()})


def _onnxruntime(folder: Path) -> Callable[[dict[str, Any]], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options)
    names = {value.name for value in session.get_inputs()}
    return lambda inputs: session.run(None, {name: value for name, value in inputs.items() if name in names})


def _tf_bert(folder: Path) -> Callable[[dict[str, Any]], Any]:
    import tensorflow as tf
    from transformers import BertConfig, TFBertModel

    model = TFBertModel(BertConfig.from_pretrained(folder / "pretrained"))
    function = tf.function(lambda inputs: model(inputs, training=False).last_hidden_state)
    return lambda inputs: function({name: tf.constant(value) for name, value in inputs.items()})


ENGINES: dict[str, Callable[[Path], Callable[[dict[str, Any]], Any]]] = {
    "torch": _torch,
    OURS[0]: _saved_model,
    OURS[1]: partial(_saved_model, name="kernels"),
    "TFBert": _tf_bert,
    "onnxruntime": _onnxruntime,
}


def measure(engine: str, folder: Path) -> dict[int, float]:
    """Return the processor seconds of the fastest call, by batch."""
    call, fastest = ENGINES[engine](folder), {}
    for batch in BATCHES:
        inputs, seconds = _inputs(batch), []
        for number in range(2 + CALLS[batch]):
            began = time.process_time()
            call(inputs)
            if number >= 2:
                seconds.append(time.process_time() - began)
        fastest[batch] = min(seconds)
    return fastest


def make(folder: Path) -> None:
    """Write the model: a folder of transformers', our SavedModel and our ONNX file of it."""
    if not (folder / "pretrained").exists():
        from transformers import BertConfig, BertModel

        BertModel(BertConfig()).save_pretrained(folder / "pretrained")
    made = {
        "saved_model": ["--to", "savedmodel"],
        "kernels": ["--to", "savedmodel", "--layout", "tensorflow"],
        "model.onnx": ["--to", "onnx"],
    }
    for name, options in made.items():
        if not (folder / name).exists():
            arguments = [str(folder / "pretrained"), str(folder / name), "--verify", "weights", *options]
            subprocess.run([sys.executable, "-m", "converter", *arguments], cwd=ROOT, check=True)


def _measured_apart(engine: str, folder: Path) -> dict[int, float]:
    python = os.environ["CKCONV_ORACLE_PYTHON"] if engine == "TFBert" else sys.executable
    command = [python, "-m", "tests.benchmarks.latency", "--folder", str(folder), "--engine", engine]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **_ONE_THREAD}, check=True, **quiet)
    answer = json.loads(done.stdout.splitlines()[-1])
    return {int(batch): seconds for batch, seconds in answer.items()}


def compare(folder: Path, rounds: int) -> None:
    """Measure all engines in turn and print the multiples."""
    engines = [name for name in ENGINES if name != "TFBert" or "CKCONV_ORACLE_PYTHON" in os.environ]
    fastest = {engine: dict.fromkeys(BATCHES, float("inf")) for engine in engines}
    for _ in range(rounds):
        for engine in engines:
            for batch, seconds in _measured_apart(engine, folder).items():
                fastest[engine][batch] = min(fastest[engine][batch], seconds)
    print(f"BERT-base, {LENGTH} tokens, one thread: multiples of torch's time, batch {BATCHES[0]} and {BATCHES[1]}")
    for engine in engines:
        times = fastest[engine]
        ratios = " ".join(f"{times[batch] / fastest['torch'][batch]:6.2f}" for batch in BATCHES)
        print(f"{engine:<24} {ratios}   ({', '.join(f'{times[batch] * 1000:.0f} ms' for batch in BATCHES)})")
    for ours, (other, limit) in product(OURS, TARGETS.items()):
        if other in fastest:
            ratios = [fastest[ours][batch] / fastest[other][batch] for batch in BATCHES]
            verdict = "met" if max(ratios) <= limit else "missed"
            print(f"{ours}, at most {limit} x {other}: {' and '.join(f'{ratio:.2f}' for ratio in ratios)}, {verdict}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine:
        print(json.dumps(measure(options.engine, options.folder)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        make(folder)
        compare(folder, options.rounds)


if __name__ == "__main__":
    main()
