"""Reading what torch.save writes: both layouts, every element type, views, ties, containers, modules."""

from __future__ import annotations

import argparse
import collections
import pathlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import converter
from converter.encoding import zip as zip_archive
from converter.encoding.zip import Record
from converter.errors import LossError, ReadError
from converter.execution.streaming import stream
from converter.formats import Probe
from converter.formats.pytorch import FORMAT
from converter.model.checkpoint import Checkpoint
from converter.model.dtype import DType
from converter.model.file import LocalFile
from converter.model.output import OutputFile
from converter.model.tensor import FileTensor, Tensor

DTYPES = [getattr(torch, dtype.value) for dtype in DType]
LAYOUTS = {"zip": {}, "legacy": {"_use_new_zipfile_serialization": False}}


@pytest.fixture(params=LAYOUTS)
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Save with torch and read with the format, in either layout."""

    def save(value: Any, **options: Any) -> Checkpoint:
        path = tmp_path / "model.anything"
        torch.save(value, path, **LAYOUTS[request.param], **options)
        assert FORMAT.sniff(Probe(path))
        return read(path)

    return save


def read(path: Path) -> Checkpoint:
    assert FORMAT.read is not None
    return FORMAT.read(path, FORMAT.read_options())


def raw(tensor: torch.Tensor) -> bytes:
    flat = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach()).reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def check(found: Tensor, expected: torch.Tensor) -> None:
    assert (f"torch.{found.dtype.value}", found.shape) == (str(expected.dtype), tuple(expected.shape))
    assert found.numpy().tobytes() == raw(expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_element_types(save: Any, dtype: torch.dtype) -> None:
    bits = torch.randint(0, 2 if dtype is torch.bool else 256, (3, 4 * dtype.itemsize), dtype=torch.uint8)
    tensor = bits.view(dtype)
    checkpoint = save({"x": tensor, "scalar": tensor[0, 0].clone(), "empty": tensor[:0].clone()})
    check(checkpoint.tensors["x"], tensor)
    check(checkpoint.tensors["scalar"], tensor[0, 0])
    check(checkpoint.tensors["empty"], tensor[:0])


def test_views(save: Any) -> None:
    base = torch.arange(60.0).reshape(3, 4, 5)
    views = {
        "base": base,
        "transposed": base.permute(2, 0, 1),
        "slice": base[1:, ::2, 1:4],
        "row": base[2],
        "diagonal": base[0].diagonal(),
        "expanded": torch.tensor([1.0, 2.0]).reshape(2, 1).expand(2, 7),
        "single": base[1:2, 1:2, 1:2].transpose(0, 2),
        "nothing": base[:, 2:2],
    }
    checkpoint = save(views)
    assert not checkpoint.aliases
    for name, expected in views.items():
        check(checkpoint.tensors[name], expected)
    assert isinstance(checkpoint.tensors["row"], FileTensor)


def test_ties(save: Any) -> None:
    shared = torch.randn(4, 3)
    checkpoint = save({"a": shared, "other": shared.t(), "b": shared, "c": shared[:], "half": shared[:2]})
    assert checkpoint.aliases == {"b": "a", "c": "a"}
    assert list(checkpoint.tensors) == ["a", "other", "half"]
    check(checkpoint.tensor("c"), shared)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_protocols(save: Any, protocol: int) -> None:
    tensor = torch.randn(3)
    check(save({"x": tensor, "y": "z" * 100_000}, pickle_protocol=protocol).tensors["x"], tensor)


def test_bits_are_kept(save: Any) -> None:
    bits = torch.tensor([0x7FC00001, 0x7F800001, -1, 1, -(1 << 31)], dtype=torch.int32)
    assert save({"x": bits.view(torch.float32)}).tensors["x"].numpy().tobytes() == raw(bits)


def test_parameters_buffers_and_frozen_ones(save: Any) -> None:
    checkpoint = save(
        {
            "w": torch.nn.Parameter(torch.ones(2)),
            "frozen": torch.nn.Parameter(torch.ones(3), requires_grad=False),
            "counter": torch.nn.Buffer(torch.ones(2)),
            "bn.running_mean": torch.ones(2),
            "mask": torch.ones(2, dtype=torch.bool),
        }
    )
    assert checkpoint.frozen == {"frozen"}
    assert checkpoint.buffers == {"counter", "bn.running_mean", "mask"}


def test_nested_containers_are_flattened(save: Any) -> None:
    a, b, c = torch.ones(1), torch.ones(2), torch.ones(3)
    checkpoint = save(
        {"encoder": collections.OrderedDict(w=a), "blocks": [{"w": b}, (c,)], "lr": 0.1, 3: torch.ones(4)}
    )
    assert list(checkpoint.tensors) == ["encoder.w", "blocks.0.w", "blocks.1.0", "3"]
    assert checkpoint.extras == {"lr": 0.1}


@pytest.mark.parametrize("root", ["model_state_dict", "state_dict", "model", "module"])
def test_training_containers(save: Any, root: str) -> None:
    scheduler = {"last_epoch": 3, "_last_lr": [0.1]}
    checkpoint = save(
        {
            root: {"w": torch.ones(2)},
            "lr_scheduler": scheduler,
            "epoch": 7,
            "iter": 70,
            "rng": torch.arange(3),
            "numbers": {"a": np.float64(1.5), "b": np.arange(3.0).reshape(1, 3), "c": {1, 2}, "d": (1, 2j, b"x", None)},
            "path": pathlib.PurePosixPath("/a/b"),
        }
    )
    assert list(checkpoint.tensors) == ["w"]
    extras = dict(checkpoint.extras)
    assert extras["scheduler_state_dict"] == scheduler
    assert (extras["epoch"], extras["global_step"], extras["path"]) == (7, 70, "/a/b")
    assert extras["rng"].numpy().tolist() == [0, 1, 2]
    assert extras["numbers"]["a"] == 1.5
    assert extras["numbers"]["b"].numpy().tolist() == [[0, 1, 2]]
    assert (extras["numbers"]["c"], extras["numbers"]["d"]) == ({1, 2}, (1, 2j, b"x", None))
    assert not checkpoint.lines


def test_lightning(save: Any) -> None:
    checkpoint = save(
        {
            "epoch": 1,
            "global_step": 20,
            "pytorch-lightning_version": "2.5",
            "state_dict": {"model.w": torch.ones(2)},
            "loops": {"fit_loop": {"state_dict": {}}},
            "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5)}},
            "optimizer_states": [],
            "lr_schedulers": [{"last_epoch": 20}],
            "hyper_parameters": {"lr": 0.1},
        }
    )
    assert list(checkpoint.tensors) == ["model.w"]
    assert checkpoint.extras["scheduler_state_dict"] == {"last_epoch": 20}
    assert checkpoint.extras["callbacks"]["ModelCheckpoint"]["best_model_score"].numpy() == 0.5
    assert checkpoint.extras["hyper_parameters"] == {"lr": 0.1}


def test_numpy_arrays_are_tensors(save: Any) -> None:
    arrays = {
        "c": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
        "big": np.arange(4, dtype=">f8"),
        "bool": np.array([True, False]),
        "scalar": np.array(3, dtype=np.int16),
        "empty": np.zeros((0, 3)),
    }
    checkpoint = save(arrays)
    for name, expected in arrays.items():
        assert np.array_equal(checkpoint.tensors[name].numpy(), expected), name
    others = {
        "objects": np.array([None, "a"], dtype=object),
        "names": np.array(["cat", "dog"]),
        "dates": np.array(["2020-01-01"], dtype="datetime64[D]"),
        "date": np.datetime64("2020-01-01"),
        "records": np.zeros(2, dtype=[("x", "f4"), ("n", "i8")]),
        "long": np.zeros(2, dtype=np.longdouble),
        "masked": np.ma.masked_array([1, 2], [True, False]),
        "generator": np.random.default_rng(0),
    }
    for both in ({**arrays, **others}, {"model": arrays, **others}):
        checkpoint = save(both)
        assert set(checkpoint.tensors) == set(arrays)
        assert {line.name.partition(".")[0] for line in checkpoint.lines} == set(others)


@pytest.fixture
def project() -> Iterator[Any]:
    """A class of the user's own project, which is gone when the file is read."""
    module = types.ModuleType("users_project")

    class Settings:
        pass

    Settings.__module__, Settings.__qualname__ = "users_project", "Settings"
    module.Settings = Settings  # type: ignore[attr-defined]
    sys.modules["users_project"] = module
    yield Settings
    del sys.modules["users_project"]


def test_what_cannot_be_carried_is_said(save: Any, project: Any) -> None:
    settings = project()
    settings.lr, settings.centre = 0.1, [torch.ones(2)]
    checkpoint = save(
        {
            "model": {"w": torch.ones(1)},
            "args": argparse.Namespace(a=1),
            "settings": settings,
            "dtype": torch.float16,
            "config": np.dtype("f4"),
        }
    )
    assert [(line.name, line.reason) for line in checkpoint.lines] == [
        ("args", "argparse.Namespace is not carried"),
        ("settings", "users_project.Settings is not carried"),
        ("settings.centre.0", "is inside settings, which is not carried"),
        ("config", "numpy.dtype is not carried"),
    ]
    assert checkpoint.extras == {"dtype": "torch.float16"}


def test_whole_modules(save: Any) -> None:
    model = torch.nn.Sequential(
        torch.nn.Embedding(5, 4), torch.nn.Linear(4, 5, bias=False), torch.nn.BatchNorm1d(5), torch.nn.ReLU()
    )
    model[1].weight = model[0].weight
    model[2].bias.requires_grad = False
    model[3].register_buffer("transient", torch.ones(1), persistent=False)
    model[3].loose = torch.ones(2)
    checkpoint = save(model)
    expected = model.state_dict()
    assert set(checkpoint.names) == set(expected)
    assert checkpoint.aliases == {"1.weight": "0.weight"}
    assert checkpoint.buffers == {"2.running_mean", "2.running_var", "2.num_batches_tracked"}
    assert checkpoint.frozen == {"2.bias"}
    assert [line.name for line in checkpoint.lines] == ["3.loose"]
    for name, tensor in expected.items():
        check(checkpoint.tensor(name), tensor)


def test_extra_state_in_a_state_dict_is_said(save: Any) -> None:
    checkpoint = save({"state_dict": {"w": torch.ones(1), "fc._extra_state": {"scale": 2}}})
    assert [(line.name, line.reason) for line in checkpoint.lines] == [
        ("fc._extra_state.scale", "is no tensor but int")
    ]


UNSUPPORTED = {
    "sparse": lambda: torch.eye(3).to_sparse(),
    "sparse csr": lambda: torch.eye(3).to_sparse_csr(),
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(3), 1.0, 0, torch.qint8),
    "meta": lambda: torch.ones(3, device="meta"),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "nested jagged": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
    "complex32": lambda: torch.ones(3, dtype=torch.complex32),
    "uninitialized": lambda: torch.nn.UninitializedParameter(),
    "uninitialized buffer": lambda: torch.nn.UninitializedBuffer(),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_tensors_that_nothing_holds_are_refused_by_name_until_they_are_left_out(
    save: Any, kind: str, tmp_path: Path
) -> None:
    checkpoint = save({"w": torch.ones(1), "odd": UNSUPPORTED[kind]()})
    assert list(checkpoint.tensors) == ["w"]
    (line,) = checkpoint.lines
    assert (line.name, line.is_refused_by_default) == ("odd", True)
    assert kind.removesuffix(" csr").removesuffix(" jagged") in line.reason
    for to in ("x.safetensors", "x.pt"):
        refused = r"tensor odd: .* not supported|values; --exclude 'odd' leaves it out"
        with pytest.raises(LossError, match=refused):
            converter.convert(tmp_path / "model.anything", tmp_path / to)
        for options in ({"exclude": ("odd",)}, {"include": ("w",)}, {"allow_dropped": ("odd",)}):
            report = converter.convert(tmp_path / "model.anything", tmp_path / to, overwrite=True, **options)
            assert (report.counts["mapped"], report.counts["dropped"]) == (1, 1)
    with pytest.raises(ReadError, match="tensor odd: "):
        save({"odd": UNSUPPORTED[kind]()})


def test_an_axis_that_may_vary_is_no_reason(save: Any) -> None:
    """torch.compile is told so by attributes of the tensor, which are saved with it."""
    tensor = torch.ones(4, 2)
    torch._dynamo.mark_dynamic(tensor, 0)
    check(save({"w": tensor}).tensors["w"], torch.ones(4, 2))


def test_tensors_that_nothing_holds_are_never_the_same(tmp_path: Path) -> None:
    for name, value in (("a", {"w": torch.ones(2), "odd": torch.eye(3).to_sparse()}), ("b", {"w": torch.ones(2)})):
        torch.save(value, tmp_path / f"{name}.pt")
    both = converter.diff(tmp_path / "a.pt", tmp_path / "a.pt")
    assert (both.is_same, both.changed) == (False, {"odd": "is a sparse tensor, which is not supported: not compared"})
    alone = [converter.diff(tmp_path / f"{left}.pt", tmp_path / f"{right}.pt") for left, right in ("ab", "ba")]
    assert [(each.only_left, each.only_right) for each in alone] == [(("odd",), ()), ((), ("odd",))]
    assert converter.diff(tmp_path / "b.pt", tmp_path / "b.pt").is_same


def test_tensors_of_other_kinds_beside_the_weights_are_lines(save: Any) -> None:
    checkpoint = save({"model": {"w": torch.ones(2, 2)}, "graph": {"adj": torch.eye(3).to_sparse(), "n": 3, "m": 2}})
    assert list(checkpoint.tensors) == ["w"]
    assert [line.name for line in checkpoint.lines] == ["graph"]


def test_signs_that_are_still_to_be_changed_are_changed(save: Any) -> None:
    values = torch.randn(3, 2, dtype=torch.complex64)
    tensors = {
        "plain": values,
        "conjugated": values.conj(),
        "turned": values.t().conj(),
        "imaginary": values.clone().conj().imag,
        "both": values.clone().conj().imag.t(),
    }
    checkpoint = save(tensors)
    assert not checkpoint.aliases
    for name, tensor in tensors.items():
        check(checkpoint.tensors[name], tensor.resolve_conj().resolve_neg())


@pytest.fixture
def four_processes() -> Iterator[Any]:
    """A process group of four of which this process plays one, and a mesh of one process."""
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.device_mesh import DeviceMesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    init_process_group("fake", store=FakeStore(), rank=0, world_size=4)
    yield DeviceMesh("cpu", [0, 1, 2, 3]), DeviceMesh("cpu", [0])
    destroy_process_group()


@pytest.mark.filterwarnings("ignore")
def test_a_distributed_tensor_is_what_this_process_has_where_that_is_all(save: Any, four_processes: Any) -> None:
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

    four, one = four_processes
    values = torch.randn(4, 3)
    whole = {
        "one process": DTensor.from_local(values, one, [Shard(0)]),
        "everywhere": DTensor.from_local(values * 2, four, [Replicate()]),
    }
    parts = {
        "a part": DTensor.from_local(values * 3, four, [Shard(0)]),
        "a summand": DTensor.from_local(values * 4, four, [Partial()]),
    }
    checkpoint = save({"w": torch.ones(2), **whole, **parts})
    for name, tensor in whole.items():
        check(checkpoint.tensors[name], tensor.to_local())
    assert set(checkpoint.tensors) == {"w", *whole}
    said = {line.name: line.reason for line in checkpoint.lines}
    assert said["a part"].startswith("is one part of a DTensor of [16, 3], of [4, 3] (Shard): save its full_tensor()")
    assert "(Partial)" in said["a summand"]


def test_storages_are_said_to_be_dropped(save: Any) -> None:
    checkpoint = save({"w": torch.ones(1), "s": torch.ones(3).untyped_storage()})
    assert list(checkpoint.tensors) == ["w"]
    assert [line.name for line in checkpoint.lines] == ["s"]


@pytest.mark.parametrize("value", [1, {}, {"a": 1}, [1, 2], "text"])
def test_files_without_tensors_are_refused(save: Any, value: Any) -> None:
    with pytest.raises(ReadError, match="holds no tensor"):
        save(value)


@pytest.mark.parametrize(
    "around", [lambda inner: inner, lambda inner: {"net": inner}, lambda inner: {"model": inner, "n": 1}]
)
def test_keys_that_are_no_names_are_said(save: Any, around: Any) -> None:
    with pytest.raises(ReadError, match="holds no tensor under a name: its keys are of the type tuple"):
        save(around({("layer", 0): torch.ones(2), ("layer", 1): torch.ones(2)}))


def test_tables_beside_the_weights_may_have_any_keys(save: Any) -> None:
    checkpoint = save({"model": {"w": torch.ones(2, 2)}, "cache": {(0, 1): torch.ones(2, 2)}})
    assert list(checkpoint.tensors) == ["w"]
    assert not [line for line in checkpoint.lines if line.is_refused_by_default]


@pytest.mark.parametrize("root", ["model", None])
def test_weights_under_keys_that_are_no_names_are_for_the_user_to_leave_out(
    save: Any, root: str | None, tmp_path: Path
) -> None:
    state = {"a.w": torch.ones(2), ("b", 1): torch.ones(3), (1, 2): "x"}
    checkpoint = save(state if root is None else {root: state, "epoch": 1})
    assert list(checkpoint.tensors) == ["a.w"]
    source, name = tmp_path / "model.anything", "('b', 1)"
    with pytest.raises(LossError, match=r"tensor \('b', 1\): has a key that is no name; --exclude"):
        converter.convert(source, tmp_path / "x.safetensors")
    report = converter.convert(source, tmp_path / "x.safetensors", exclude=(name,))
    assert [line.name for line in report.lines if line.reason == "left out as asked"] == [name]


def test_names_that_collide_are_refused(save: Any) -> None:
    assert save({1: torch.ones(1), "2": torch.ones(1)})
    for value in ({1: torch.ones(1), "1": torch.ones(2)}, {"a.b": torch.ones(1), "a": {"b": torch.ones(1)}}):
        with pytest.raises(ReadError, match="name of two tensors"):
            save(value)


def test_big_endian_files(tmp_path: Path) -> None:
    """As torch.save lays them out on s390x: the record `byteorder`, and elements swapped."""
    values = {
        "f": torch.randn(3, 4),
        "h": torch.randn(5).bfloat16(),
        "c": torch.randn(2, dtype=torch.complex128),
        "b": torch.tensor([1, 2], dtype=torch.uint8),
        "t": torch.arange(6, dtype=torch.int64).reshape(2, 3).t(),
    }
    path = tmp_path / "little.pt"
    torch.save(values, path)
    file = LocalFile(path)
    itemsizes = [4, 2, 8, 1, 8]  # of what is swapped: a complex number is two
    records = []
    for name, member in zip_archive.read_members(file).items():
        content = zip_archive.read_bytes(file, member, limit_bytes=1 << 20)
        if "/data/" in name:
            words = np.frombuffer(content, f"V{itemsizes[int(name.rpartition('/')[2])]}")
            content = b"".join(bytes(word)[::-1] for word in words)
        records.append(Record(name=name, content=b"big" if name.endswith("byteorder") else content))
    stream(OutputFile(name="big.pt", pieces=zip_archive.archive(records)), tmp_path)
    checkpoint = read(tmp_path / "big.pt")
    for name, expected in values.items():
        check(checkpoint.tensors[name], expected)


def test_reading_opens_no_tensor(tmp_path: Path) -> None:
    """A storage full of damage is found when it is read, and not before."""
    path = tmp_path / "model.pt"
    torch.save({"w": torch.zeros(1000), "v": torch.ones(1)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(bytes(2000)) + 100] ^= 1
    path.write_bytes(data)
    checkpoint = read(path)
    assert checkpoint.tensors["v"].numpy() == 1
    with pytest.raises(ReadError, match="CRC"):
        checkpoint.tensors["w"].numpy()


def test_a_git_lfs_pointer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert not FORMAT.sniff(Probe(path))
    with pytest.raises(ReadError, match="Git LFS pointer"):
        read(path)


def test_no_framework_is_imported(tmp_path: Path) -> None:
    import subprocess

    path = tmp_path / "model.pt"
    torch.save({"model": torch.nn.Linear(2, 2), "epoch": 1}, path)
    code = (
        "import sys; from pathlib import Path; from converter.formats.pytorch import FORMAT\n"
        f"FORMAT.read(Path({str(path)!r}), FORMAT.read_options()).tensors['weight'].numpy()\n"
        "print(*sorted({'torch', 'pickle', 'tensorflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout.split()


class Scales:
    """As bitsandbytes keeps what belongs to the codes of a parameter."""

    def __init__(self) -> None:
        self.absmax, self.code = torch.ones(2), torch.ones(16)


@pytest.mark.parametrize(
    "attributes", [{"quant_state": Scales()}, {"SCB": torch.ones(2)}, {"s": [{"x": torch.ones(1)}]}]
)
def test_codes_whose_scales_are_attributes_are_no_weights(save: Any, attributes: Any, tmp_path: Path) -> None:
    codes = torch.nn.Parameter(torch.ones(4, 1, dtype=torch.uint8), requires_grad=False)
    plain = torch.nn.Parameter(torch.ones(2))
    codes.__dict__ |= attributes
    plain.__dict__ |= {"main_grad": torch.ones(2), "name": "x"}
    checkpoint = save({"a.weight": codes, "a.bias": plain})
    assert list(checkpoint.tensors) == ["a.bias"]
    with pytest.raises(
        LossError, match=rf"tensor a\.weight: is quantised, and its scales are its attribute {next(iter(attributes))}"
    ):
        converter.convert(tmp_path / "model.anything", tmp_path / "x.safetensors")
    codes.__dict__.clear()
    codes.__dict__["name"] = "y"
    assert list(save({"a.weight": codes, "a.bias": plain}).tensors) == ["a.weight", "a.bias"]
