"""What every format keeps to, as tests: for those of this package, and of others that add one by an entry point.

::

    from converter.testing import FormatTests
    from mine import FORMAT

    class TestMine(FormatTests):
        format = FORMAT

pytest runs it; a test gets an empty folder, `tmp_path`. The format has to be known to the registry: installed with an
entry point of the group ``ckconv.formats``. Nothing but base dependencies is needed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import converter
from converter.errors import CkconvError, ReadError
from converter.formats import Format, Probe, detect, registry
from converter.model.checkpoint import Checkpoint, Config, Part
from converter.model.dtype import DType
from converter.model.output import Provenance, piece_bytes
from converter.model.tensor import Array, ArrayTensor, Tensor
from converter.version import __version__

__all__ = [
    "SAMPLES",
    "FormatTests",
    "assert_same",
    "destination_of",
    "files_of",
    "many",
    "options_of",
    "plain",
    "read_all",
    "with_config",
    "written",
]

MANY = 3_000


def _random(dtype: DType, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """A tensor of random bits: NaN payloads and denormals included."""
    generator = np.random.default_rng(seed)
    size = int(np.prod(shape))
    if dtype is DType.BOOL:
        return ArrayTensor.of(generator.integers(0, 2, shape).astype(np.bool_))
    raw = generator.integers(0, 256, size * dtype.itemsize, dtype=np.uint8)
    return ArrayTensor.of(raw.view(dtype.numpy).reshape(shape))


def plain() -> Checkpoint:
    """A small network as torch names it."""
    return Checkpoint(
        tensors={
            "encoder.dense.weight": _random(DType.FLOAT32, (5, 3)),
            "encoder.dense.bias": _random(DType.FLOAT32, (5,), 1),
            "head.weight": _random(DType.FLOAT32, (2, 5), 2),
        }
    )


def shapes() -> Checkpoint:
    """Scalars, empty tensors, many axes."""
    return Checkpoint(
        tensors={
            "scalar": _random(DType.FLOAT32, ()),
            "empty": _random(DType.FLOAT32, (0, 4)),
            "deep": _random(DType.FLOAT32, (1, 2, 1, 3, 1, 2)),
            "long": _random(DType.FLOAT32, (100_003,)),
        }
    )


def names() -> Checkpoint:
    """Names that somebody somewhere uses, and that some format has trouble with."""
    wild = [
        "plain",
        "with.dots.weight",
        "with space",
        "with/slash/kernel:0",
        "_underscore",
        "0digit",
        "UPPER",
        "upper",
        "\u00fcml\u00e4ut.\u6a21\u578b",
        "percent%20",
        "back\\slash",
        "at@sign#hash",
        "emoji\U0001f600",
        "x" * 200,
    ]
    return Checkpoint(tensors={name: _random(DType.FLOAT32, (2,), seed) for seed, name in enumerate(wild)})


def ties() -> Checkpoint:
    """Two names for one tensor."""
    tensors = {"embedding.weight": _random(DType.FLOAT32, (4, 3)), "other": _random(DType.FLOAT32, (3,), 1)}
    return Checkpoint(tensors=tensors, aliases={"decoder.weight": "embedding.weight"})


def many() -> Checkpoint:
    """Thousands of tensors, as a large mixture of experts has."""
    array = np.arange(MANY, dtype=np.float32)
    return Checkpoint(tensors={f"layer.{n}.bias": ArrayTensor.of(array[n : n + 1]) for n in range(MANY)})


def dtypes_of(format_: Format) -> Checkpoint:
    """One tensor of every element type that `format_` says it holds."""
    held = sorted(format_.dtypes, key=lambda dtype: dtype.value)
    return Checkpoint(tensors={dtype.value: _random(dtype, (3, 7), seed) for seed, dtype in enumerate(held)})


SAMPLES: Mapping[str, Callable[[Format], Checkpoint]] = {
    "plain": lambda format_: plain(),
    "shapes": lambda format_: shapes(),
    "names": lambda format_: names(),
    "ties": lambda format_: ties(),
    "dtypes": dtypes_of,
}


def options_of(format_: Format) -> dict[str, Any]:
    """Return what a checkpoint without an architecture needs to be written."""
    return {"weights_only": True}


def destination_of(format_: Format, folder: str | os.PathLike[str]) -> str:
    """Return a path in `folder` for the format: a file where it has files, else a folder."""
    return f"{os.fspath(folder)}/x{format_.suffixes[0] if format_.suffixes else ''}"


def with_config(checkpoint: Checkpoint, format_: Format) -> Checkpoint:
    """Return the checkpoint with a config, if the format can hold one."""
    if Part.CONFIG not in format_.holds:
        return checkpoint
    return replace(checkpoint, config=Config(values={"model_type": "none"}, raw=b'{"model_type": "none"}\n'))


def written(checkpoint: Checkpoint, format_: Format, folder: Path, **options: Any) -> Path:
    """Write a sample into `folder` and return where it is."""
    path = destination_of(format_, folder)
    converter.write(with_config(checkpoint, format_), path, to=format_.name, **options_of(format_), **options)
    return Path(path)


def read_all(path: Path, format_: Format | None = None) -> None:
    """Read a checkpoint and every tensor in it; of `format_`, if that is given, whatever the content says."""
    for tensor in converter.read(path, from_format=None if format_ is None else format_.name).tensors.values():
        tensor.numpy()


def files_of(path: Path) -> list[Path]:
    """Return the files that reading depends on, but text."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sorted(file for file in files if file.suffix not in (".json", ".txt") and _is_needed(file, path))


def _is_needed(file: Path, path: Path) -> bool:
    """Whether reading fails without a file."""
    aside = file.with_name("aside")
    file.rename(aside)
    try:
        read_all(path)
    except CkconvError:
        return True
    finally:
        aside.rename(file)
    return False


def assert_same(expected: Checkpoint, found: Checkpoint) -> None:
    """Hold two checkpoints to the same names, element types, shapes and bits; collect every difference first."""
    wrong = [f"missing {name!r}" for name in expected.names if name not in found]
    wrong += [f"unexpected {name!r}" for name in found.names if name not in expected]
    for name in expected.names:
        if name in found:
            ours, theirs = expected.tensor(name), found.tensor(name)
            if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
                wrong.append(f"{name!r}: {theirs.dtype}{theirs.shape}, not {ours.dtype}{ours.shape}")
            elif ours.numpy().tobytes() != theirs.numpy().tobytes():
                wrong.append(f"{name!r}: other bits")
    assert not wrong, wrong


def assert_refused(path: Path, format_: Format) -> None:
    """Hold reading to fail with exit code 1 and an error of one line."""
    error = _raised(lambda: read_all(path, format_))
    assert error.exit_code == 1, f"{error}: exit code {error.exit_code}"
    assert "\n" not in str(error), f"{error}: is no one line"


def _raised(action: Callable[[], object]) -> CkconvError:
    try:
        action()
    except CkconvError as error:
        return error
    raise AssertionError("no error was raised")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Unreadable(Tensor):
    def _read(self) -> Array:
        raise ReadError("cannot be read")


class FormatTests:
    """The tests of one format, which a subclass names."""

    format: ClassVar[Format]

    def test_a_plain_checkpoint(self, tmp_path: Path) -> None:
        """Names, element types, shapes and bits come back."""
        self._assert_comes_back("plain", tmp_path)

    def test_scalars_and_empty_tensors(self, tmp_path: Path) -> None:
        """Shapes of no axis, of no element and of many axes come back."""
        self._assert_comes_back("shapes", tmp_path)

    def test_names(self, tmp_path: Path) -> None:
        """Names that the format cannot hold are escaped, and come back as they were."""
        self._assert_comes_back("names", tmp_path)

    def test_ties(self, tmp_path: Path) -> None:
        """Every name of a tied tensor comes back."""
        self._assert_comes_back("ties", tmp_path)

    def test_element_types(self, tmp_path: Path) -> None:
        """Every element type that the format says it holds comes back, NaN payloads and denormals included."""
        self._assert_comes_back("dtypes", tmp_path)

    def _assert_comes_back(self, sample: str, folder: Path) -> None:
        checkpoint = SAMPLES[sample](self.format)
        assert_same(checkpoint, converter.read(written(checkpoint, self.format, folder)))

    def test_no_other_format_claims_it(self, tmp_path: Path) -> None:
        """The content says which format it is."""
        probe = Probe(written(plain(), self.format, tmp_path))
        assert detect(probe).name == self.format.name
        assert [each.name for each in registry().values() if each.sniff(probe)] == [self.format.name]

    def test_thousands_of_tensors(self, tmp_path: Path) -> None:
        """Many small tensors come back, each as itself."""
        found = converter.read(written(many(), self.format, tmp_path, durable=False))
        assert len(found.tensors) == MANY
        for number in range(0, MANY, 1234):
            assert found.tensors[f"layer.{number}.bias"].numpy()[0] == number

    def test_the_checkpoint_given_is_left_as_it_was(self, tmp_path: Path) -> None:
        """Writing changes nothing of what it was given."""
        checkpoint = plain()
        before = {key: tensor.numpy().tobytes() for key, tensor in checkpoint.tensors.items()}
        written(checkpoint, self.format, tmp_path)
        assert {key: tensor.numpy().tobytes() for key, tensor in checkpoint.tensors.items()} == before

    def test_the_same_bytes_from_several_threads(self, tmp_path: Path) -> None:
        """What is written does not depend on how many threads write it."""
        generator = np.random.default_rng(0)
        arrays = {f"layer.{n}.weight": generator.random((64 + n, 1024 * (1 + n % 7)), np.float32) for n in range(24)}
        checkpoint = Checkpoint(
            tensors={key: ArrayTensor.of(array).transpose((1, 0)) for key, array in arrays.items()},
            aliases={"tied": "layer.3.weight"},
        )
        sums = []
        for jobs in (1, 4):
            (tmp_path / f"{jobs}").mkdir()
            path = written(checkpoint, self.format, tmp_path / f"{jobs}", jobs=jobs)
            files = sorted(each for each in ([path] if path.is_file() else path.rglob("*")) if each.is_file())
            sums.append({each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in files})
        assert sums[0] == sums[1]
        found = converter.read(path).tensors["layer.5.weight"]
        assert found.numpy().tobytes() == arrays["layer.5.weight"].T.tobytes()

    def test_a_file_that_ends_too_early(self, tmp_path: Path) -> None:
        """A file cut anywhere near where its parts meet, or in between, is an error of one line."""
        path = written(plain(), self.format, tmp_path)
        needed = files_of(path)
        assert needed, "no file is needed to read it"
        for file in needed:
            whole = file.read_bytes()
            lengths = {at + near for at in self._boundaries() for near in (-1, 0, 1)}
            lengths |= {0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 1}
            for keep in sorted(length for length in lengths if 0 <= length < len(whole)):
                file.write_bytes(whole[:keep])
                assert_refused(path, self.format)
            file.write_bytes(whole)
        read_all(path)

    def _boundaries(self) -> Iterator[int]:
        """Yield where the pieces of a written sample begin, in whichever file."""
        provenance = Provenance(tool=f"ckconv {__version__}", source_name="", source_hash=lambda: "")
        output = self.format.write(with_config(plain(), self.format), self.format.write_options(), provenance)
        for file in output.files:
            yield from accumulate(map(piece_bytes, file.pieces), initial=0)

    def test_a_file_that_starts_with_something_else(self, tmp_path: Path) -> None:
        """A file whose first bytes are damaged is an error of one line."""
        path = written(plain(), self.format, tmp_path)
        for file in files_of(path):
            whole = file.read_bytes()
            file.write_bytes(bytes(byte ^ 0xFF for byte in whole[:8]) + whole[8:])
            assert_refused(path, self.format)
            file.write_bytes(whole)
        read_all(path)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        """A missing file is an error of one line."""
        path = written(plain(), self.format, tmp_path)
        for file in files_of(path):
            file.rename(file.with_name("aside"))
            assert_refused(path, self.format)
            file.with_name("aside").rename(file)
        read_all(path)

    def test_a_conversion_that_fails_leaves_nothing(self, tmp_path: Path) -> None:
        """A tensor that cannot be read leaves an empty folder empty, and an earlier output as it was."""
        sound = plain()
        folder = tmp_path / "out"
        folder.mkdir()
        bad = Checkpoint(tensors={**sound.tensors, "last.weight": _Unreadable(dtype=DType.FLOAT32, shape=(1 << 20,))})
        self._assert_fails(bad, folder)
        assert os.listdir(folder) == []
        path = written(sound, self.format, folder)
        before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        self._assert_fails(bad, folder, overwrite=True)
        assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
        assert_same(sound, converter.read(path))

    def _assert_fails(self, bad: Checkpoint, folder: Path, **options: Any) -> None:
        error = _raised(lambda: written(bad, self.format, folder, **options))
        assert isinstance(error, ReadError)
        assert (error.tensor, error.message) == ("last.weight", "cannot be read")
