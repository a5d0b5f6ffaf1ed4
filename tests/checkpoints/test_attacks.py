"""Files made to run code, or to be read in two ways, are refused at every door in one sentence."""

import ast
import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

import conditional_detr
from conditional_detr.architecture import Architecture
from conditional_detr.checkpoints.backbone_weights import load_backbone_weights
from conditional_detr.checkpoints.opening import open_checkpoint
from conditional_detr.checkpoints.safe_load import load_pth, load_safetensors
from conditional_detr.errors import InputError
from conditional_detr.training import starting
from tests.checkpoints.attacks import ATTACKS, script
from tests.cli.test_commands import cdetr, refused
from tests.training.test_loop import changed

SOURCE = Path(conditional_detr.__file__).parent


def saved(content, zip_=True) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=zip_)
    return stream.getvalue()


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "mark"


@pytest.fixture(params=ATTACKS)
def attack(request, tmp_path, mark):
    """A file with one directory for ``zipfile``, which is harmless, and one for torch."""
    file = tmp_path / "attack.pth"
    file.write_bytes(ATTACKS[request.param](saved({"model": {"a": torch.ones(9), "b": torch.ones(3)}}), script(mark)))
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert not any(name.endswith(".py") for name in archive.namelist())
    assert not mark.exists()
    return file


REFUSED = r"attack\.pth is a zip file with a second directory or other hidden parts; take it from another source"


@pytest.mark.filterwarnings("ignore::")
def test_torch_itself_runs_what_it_finds(attack, mark):
    """Otherwise the tests below would test nothing."""
    torch.load(attack, weights_only=False)
    if not mark.exists():
        pytest.skip("this version of torch reads archives in another way")


def test_two_directories_are_refused_by_python(attack, mark, tmp_path, tiny_model):
    for door in (
        load_pth,
        open_checkpoint,
        lambda file: load_backbone_weights(tiny_model.backbone, Architecture(), file),
    ):
        with pytest.raises(InputError, match=REFUSED):
            door(attack)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "conditional_detr", "id2label": {"0": "a"}}')
    attack.rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin is a zip file with a second directory"):
        open_checkpoint(folder)
    assert not mark.exists()


def test_two_directories_are_refused_from_the_hub(attack, mark, tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "conditional_detr", "id2label": {"0": "a"}}')
    attack.rename(folder / "pytorch_model.bin")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(folder))
    with pytest.raises(InputError, match=r"pytorch_model\.bin is a zip file with a second directory"):
        open_checkpoint("owner-of-models/model")
    assert not mark.exists()


@pytest.mark.parametrize("setting", ["init_from", "backbone_weights"])
def test_two_directories_are_refused_by_training(attack, mark, quick_run, setting):
    value = attack if setting == "backbone_weights" else str(attack)
    with pytest.raises(InputError, match=REFUSED):
        starting.train(changed(quick_run, model={setting: value}))
    assert not mark.exists()


def test_two_directories_are_refused_by_the_command(attack, mark, shapes_root, tmp_path):
    image = shapes_root / "val2017" / "000001.png"
    for arguments in (
        ("predict", attack, image),
        ("convert", attack, tmp_path / "out", "--to", "huggingface"),
        ("evaluate", attack, f"data.root={shapes_root}"),
        ("benchmark", attack),
        ("attention", attack, image),
    ):
        refused(cdetr(*arguments), REFUSED)
    assert not mark.exists()
    assert not (tmp_path / "out").exists()


def test_plain_torchscript_is_refused(tmp_path, mark):
    (tmp_path / "x.pth").write_bytes(script(mark))
    with pytest.raises(InputError, match="is a zip file but no"):
        load_pth(tmp_path / "x.pth")
    assert not mark.exists()


def called(tree: ast.AST) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def test_nothing_else_reads_what_could_run():
    """One module knows pickle; no module calls what unpickles or runs text."""
    forbidden = {
        *("torch.load", "torch.jit.load", "torch.hub.load", "torch.export.load", "torch.package.PackageImporter"),
        *("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads", "shelve.open"),
        *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "np.load", "numpy.load", "eval", "exec", "joblib.load"),
        *("accelerator.load_state", "load_checkpoint_in_model", "os.system"),
    }
    for file in SOURCE.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        assert not called(tree) & forbidden, file
        modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        risky = modules & {"pickle", "_pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}
        assert not risky or file.name == "unpickling.py", file


# --- archives ---


def archive(path: Path, entries: dict[str, bytes], change=lambda data: data) -> Path:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as out:
        for name, data in entries.items():
            out.writestr(name, data)
    path.write_bytes(change(stream.getvalue()))
    return path


GOOD = {"a/data.pkl": b"\x80\x02}.", "a/version": b"3\n", "a/data/0": bytes(40)}


def _local_name(data: bytes) -> bytes:
    return data.replace(b"a/data.pkl", b"a/date.pkl", 1)


def _same_start(data: bytes) -> bytes:
    """The second entry begins where the first does."""
    directory = data.rindex(b"PK\1\2", 0, data.rindex(b"PK\1\2"))
    return data[: directory + 42] + bytes(4) + data[directory + 46 :]


def _flag(data: bytes) -> bytes:
    out = bytearray(data)
    for position in (data.index(b"PK\3\4") + 6, data.index(b"PK\1\2") + 8):
        out[position] |= 1
    return bytes(out)


def _large(data: bytes) -> bytes:
    """The last entry is said to be of two gigabytes."""
    directory = data.rindex(b"PK\1\2")
    return data[: directory + 20] + struct.pack("<2L", 2**31, 2**31) + data[directory + 28 :]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda data: b"PK\3\4" + bytes(96) + data, "a second directory or other hidden parts"),
        (lambda data: data + b"x", "without an end"),
        (lambda data: data[:-2] + b"\4\0" + b"note", "without an end"),
        (lambda data: data[:-22] + bytes(46) + data[-22:], "a second directory or other hidden parts"),
        (lambda data: data[:-22] + struct.pack("<4sLQL", b"PK\6\7", 0, 0, 1) + data[-22:], "a second directory"),
        (_local_name, "different things of an entry in two places"),
        (_same_start, "overlap|different things of an entry"),
        (_flag, "is encrypted"),
        (_large, "claims entries larger than the file"),
        (lambda data: data.replace(bytes(40), bytes(39) + b"x", 1), None),  # read only when it is asked for
        (lambda data: data.replace(b"\x80\x02}.", b"\x80\x02).", 1), "checksum of a part is wrong"),
        (lambda data: data.replace(b"a/version", b"a/\0ersion"), "two entries have one name|different things"),
    ],
)
def test_archives_that_can_be_read_in_two_ways(change, sentence, tmp_path):
    assert load_pth(archive(tmp_path / "good.pth", GOOD)) == {}
    path = archive(tmp_path / "x.pth", GOOD, change)
    if sentence is None:
        assert load_pth(path) == {}
    else:
        with pytest.raises(InputError, match=sentence) as caught:
            load_pth(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "names", [["a/data.pkl", "a/DATA.PKL"], ["a/data.pkl", "b/data.pkl"], ["data.pkl"], ["a/data.pkl", "a/X", "a/x"]]
)
def test_ambiguous_names(names, tmp_path):
    with pytest.raises(InputError, match="is a zip file but no"):
        load_pth(archive(tmp_path / "x.pth", dict.fromkeys(names, b"\x80\x02}.")))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_entries_of_one_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as out:
        for data in (b"\x80\x02}.", b"\x80\x02cposix\nsystem\n."):
            out.writestr("a/data.pkl", data)
    with pytest.raises(InputError, match="is a zip file but no"):
        load_pth(tmp_path / "x.pth")


def test_numbers_of_another_machine(tmp_path):
    with pytest.raises(InputError, match=r"x\.pth was saved on a machine with other numbers"):
        load_pth(archive(tmp_path / "x.pth", {**GOOD, "a/byteorder": b"big"}))


# --- pickles ---


class Call:
    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Storage:
    """Pickled as a storage with this id."""

    def __init__(self, *pid) -> None:
        self.pid = pid


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        return obj.pid if isinstance(obj, Storage) else None


def pickled(content, protocol=2) -> bytes:
    stream = io.BytesIO()
    _Pickler(stream, protocol).dump(content)
    return stream.getvalue()


def crafted(path: Path, content) -> Path:
    return archive(path, {"a/data.pkl": pickled(content), "a/data/0": bytes(40)})


FLOATS = ("storage", torch.FloatStorage, "0", "cpu", 10)
rebuild = torch._utils._rebuild_tensor_v2
HUGE = 2**62


@pytest.mark.parametrize(
    "arguments",
    [
        (0, (11,), (1,)),
        (1, (10,), (1,)),
        (-1, (10,), (1,)),
        (0, (10,), (-1,)),
        (9, (10,), (-1,)),
        (0, (-1,), (1,)),
        (0, (2,), (10,)),
        (0, (2, 2), (9, 1)),
        (HUGE, (1,), (1,)),
        (2**64, (1,), (1,)),
        (0, (2,), (2**62,)),
        (0, (5,), (2**62,)),
        (0, (HUGE,), (0,)),
        (0, (2**32, 2**32), (0, 0)),
        (0, (0, HUGE), (HUGE, HUGE)),
        (11, (0,), (1,)),
        (0, (1, 1), (1,)),
        (0, (True,), (1,)),
        (0.0, (1,), (1,)),
        (0, ("1",), (1,)),
        (0, 1, 1),
        (0, (10**7,), (0,)),
        (0, (1,) * 10**5, (1,) * 10**5),
    ],
)
def test_tensors_that_leave_their_storage(arguments, tmp_path):
    good = Call(rebuild, Storage(*FLOATS), 2, (2, 3), (3, 1), False, OrderedDict())
    assert torch.equal(load_pth(crafted(tmp_path / "good.pth", good)), torch.zeros(2, 3))
    content = {"model": {"x": Call(rebuild, Storage(*FLOATS), *arguments, False, OrderedDict())}}
    path = crafted(tmp_path / "x.pth", content)
    with pytest.raises(InputError, match=r"x\.pth (is damaged|claims to hold more)"):
        load_pth(path)


@pytest.mark.parametrize(
    "pid",
    [
        ("storage", torch.FloatStorage, "0", "cpu", 11),
        ("storage", torch.FloatStorage, "1", "cpu", 1),
        ("storage", torch.FloatStorage, "../version", "cpu", 1),
        ("storage", torch.FloatStorage, ("0",), "cpu", 1),
        ("storage", torch.FloatStorage, "0", "cpu", -1),
        ("storage", torch.FloatStorage, "0", "cpu", 2.0),
        ("storage", torch.FloatStorage, "0", "cpu", True),
        ("storage", torch.FloatStorage, "0", "cpu", HUGE),
        ("storage", "FloatStorage", "0", "cpu", 1),
        ("storage", torch.float32, "0", "cpu", 1),
        ("storage", OrderedDict, "0", "cpu", 1),
        ("storage", torch.FloatStorage, "0", "cpu", 4, ("1", 0, 2)),
        ("storage", torch.FloatStorage),
        ("module", torch.nn.Linear, "file", "source"),
        (),
    ],
)
def test_storages_of_odd_ids(pid, tmp_path):
    path = crafted(tmp_path / "x.pth", Call(rebuild, Storage(*pid), 0, (1,), (1,), False, OrderedDict()))
    with pytest.raises(InputError, match=r"x\.pth (is damaged|wants to call)"):
        load_pth(path)


def test_a_storage_is_no_callable_and_its_type_is_none_either(tmp_path):
    for code in (
        b"ctorch\nFloatStorage\nJ\xff\xff\xff\x7f\x85R.",
        b"ctorch\nFloatStorage\n)\x81.",
        b"ctorch\nFloatStorage\n}X\5\0\0\0dtypeNsb.",
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",  # takes a terabyte before it is read
        b"\x80\x04\x8c\x0aa\nb\x1b[31m\x07cd\x8c\x01x\x93.",  # names with control characters
    ):
        path = archive(tmp_path / "x.pth", {"a/data.pkl": code})
        with pytest.raises(InputError) as caught:
            load_pth(path)
        assert str(caught.value).isprintable()


def test_tensors_without_a_dtype_of_their_own(tmp_path):
    """A wrong kind of tensor at the place of another kind of object."""
    for content in (
        Call(torch._utils._rebuild_parameter, {"a": 1}, True, OrderedDict()),
        Call(torch._utils._rebuild_parameter, Storage(*FLOATS), True, OrderedDict()),
        Call(rebuild, torch.float32, 0, (1,), (1,), False, OrderedDict()),
        Call(rebuild, Storage(*FLOATS), 0, (1,), (1,), False, OrderedDict(), {"neg": True}),
        Call(torch.device, "x" * 10**5),
    ):
        with pytest.raises(InputError, match=r"x\.pth is damaged"):
            load_pth(crafted(tmp_path / "x.pth", content))


# --- legacy files ---


def legacy(path: Path, pid=FLOATS, keys=("0",), count=10, data=bytes(40), first=0x1950A86A20F9469CFC6C) -> Path:
    content = {"a": Call(rebuild, Storage(*pid), 0, (2,), (1,), False, OrderedDict())}
    parts = [first, 1001, {"little_endian": True}, content, list(keys)]
    path.write_bytes(b"".join(map(pickled, parts)) + struct.pack("<q", count) + data)
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"keys": ()},
        {"keys": ("0", "0")},
        {"keys": ("1",)},
        {"keys": (0,)},
        {"count": 11},
        {"count": -1},
        {"count": 9},
        {"data": bytes(39)},
        {"pid": (*FLOATS[:4], 2**40)},
        {"pid": (*FLOATS, ("view", 0, 2))},
        {"first": 1},
    ],
)
def test_legacy_files_that_contradict_themselves(changes, tmp_path):
    for pid in (FLOATS, (*FLOATS, None)):
        assert torch.equal(load_pth(legacy(tmp_path / "good.pth", pid))["a"], torch.zeros(2))
    with pytest.raises(InputError, match=r"x\.pth is damaged"):
        load_pth(legacy(tmp_path / "x.pth", **changes))


def test_legacy_storages_together_are_not_larger_than_the_file(tmp_path):
    """Each of them is not."""
    content = [Call(rebuild, Storage("storage", torch.ByteStorage, str(i), "cpu", 900), 0, (1,), (1,), False, OrderedDict()) for i in range(90)]  # fmt: skip
    parts = [0x1950A86A20F9469CFC6C, 1001, {}, content, [str(i) for i in range(90)]]
    (tmp_path / "x.pth").write_bytes(b"".join(map(pickled, parts)) + bytes(900))
    with pytest.raises(InputError, match=r"x\.pth is damaged"):
        load_pth(tmp_path / "x.pth")


def test_tar_files_of_the_first_releases(tmp_path):
    """torch would unpack them into a folder."""
    with tarfile.open(tmp_path / "x.pth", "w") as out:
        for name in ("storages", "tensors", "pickle"):
            info = tarfile.TarInfo(name)
            info.size = 4
            out.addfile(info, io.BytesIO(b"\x80\x02N."))
    with pytest.raises(InputError, match=r"x\.pth is damaged or no \.pth file"):
        load_pth(tmp_path / "x.pth")


# --- what has to work ---


@pytest.mark.parametrize("zip_", [True, False])
def test_every_kind_of_number(zip_, tmp_path):
    kinds = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
    content = {kind: torch.arange(-3, 5).to(getattr(torch, kind)) for kind in [*kinds, "complex64", "complex128"]}
    content |= {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3), "parameter": torch.nn.Parameter(torch.ones(2))}
    content |= {"expanded": torch.ones(3, 1).expand(3, 2), "view": torch.arange(10)[3:7:2]}
    (tmp_path / "x.pth").write_bytes(saved(content, zip_))
    loaded = load_pth(tmp_path / "x.pth")
    for name, value in content.items():
        assert loaded[name].dtype == value.dtype, name
        assert loaded[name].stride() == value.stride(), name
        assert torch.equal(loaded[name], value), name
    assert isinstance(loaded["parameter"], torch.nn.Parameter)
    loaded["view"] += 1  # the memory is ours


@pytest.mark.parametrize("zip_", [True, False])
def test_tensors_that_share_memory_still_share_it(zip_, tmp_path):
    whole = torch.arange(6.0)
    (tmp_path / "x.pth").write_bytes(saved({"a": whole, "b": whole[2:]}, zip_))
    loaded = load_pth(tmp_path / "x.pth")
    loaded["a"][3] = 9
    assert loaded["b"][1] == 9


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with a path")
def test_pipes_and_folders_are_no_files(tmp_path):
    """Reading a pipe would wait for ever."""
    os.mkfifo(tmp_path / "x.pth")
    for load in (load_pth, load_safetensors):
        for path in (tmp_path / "x.pth", tmp_path):
            with pytest.raises(InputError, match="can't be read"):
                load(path)
