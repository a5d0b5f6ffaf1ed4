"""Weight files are read without running code from them."""

import argparse
import io
import os
import pickle
import struct
import warnings
import zipfile
from collections import OrderedDict

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from conditional_detr.architecture import BackboneShape
from conditional_detr.checkpoints.opening import open_checkpoint
from conditional_detr.checkpoints.safe_load import load_pth, load_weights
from conditional_detr.checkpoints.state import read_state, write_state
from conditional_detr.config import ModelSettings
from conditional_detr.errors import InputError
from tests.checkpoints.models import LAYOUTS, SMALL, randomized, save_checkpoint
from tests.conftest import SHARED, needs_shared


class Calls:
    """An object that is pickled as a function call."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def save(content, path, container: str, protocol: int = 2) -> None:
    if container == "plain":
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    else:
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=container == "zip")


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("container", ["zip", "legacy", "plain"])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda mark: Calls(os.system, f"touch {mark}"), r"(posix|nt)\.system"),
        (lambda mark: Calls(eval, f"open({str(mark)!r}, 'w')"), r"builtins\.eval"),
        (lambda mark: Calls(torch.hub.load, "owner/repo", "model"), r"torch\.hub\.load"),
        (lambda mark: Calls(torch.load, str(mark)), r"torch\.serialization\.load"),
        (lambda mark: {"model": [OrderedDict(x=(1, Calls(os.mkdir, str(mark))))]}, r"(posix|nt)\.mkdir"),
        (lambda mark: argparse.Namespace(lr=Calls(exec, f"open({str(mark)!r}, 'w')")), r"builtins\.exec"),
    ],
    ids=["system", "eval", "hub", "load", "nested", "in args"],
)
def test_files_that_call_something_are_refused_by_its_name(make, name, container, protocol, tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "x.pth"
    save(make(mark), path, container, protocol)
    with pytest.raises(InputError, match=f"wants to call .*{name}.*nothing was run") as caught:
        load_pth(path)
    assert str(path) in str(caught.value)
    assert not mark.exists()


def pickled(path, code: bytes) -> None:
    """Write a file in torch's zip format with a pickle of protocol 2 that pickle itself would not write."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + code)
        archive.writestr("a/version", "3\n")


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


@pytest.mark.parametrize(
    "code",
    [
        b"c__builtin__\ngetattr\nccollections\nOrderedDict\n" + text("clear") + b"\x86R.",
        b"\x8c\x05posix\x94\x8c\x06system\x94000\x8c\x01a\x8c\x01bh\x00h\x01\x93\x8c\x01x\x85R.",  # names from the memo
        b"ccollections\nOrderedDict\n)R}" + text("x") + b"c__builtin__\neval\nsb.",  # an attribute that is a function
        b"cargparse\nNamespace\nN}" + text("__init__") + b"Ns\x86b.",  # attributes of a class
        b"ctorch._utils\n_rebuild_tensor_v2\nN}" + text("__defaults__") + b")s\x86b.",
        b"c_codecs\nencode\n" + text("ab") + text("hex") + b"\x86Rc_codecs\nencode\n" + text("a") + b"\x85R\x86.",
        b"})" + b"\x85" * 10**6 + b"Ns.",  # a key whose hash would recurse a million times
        b")q\0" + b"h\0h\0\x86q\0" * 60 + b"}h\0Ns.",  # a key with 2 ** 60 elements
        b"]q\0" + b"]q\1(h\0h\0eh\1q\0" * 60 + b".",  # a list with 2 ** 60 elements
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"J\xff\xff\xff\x7ftQ.",
        b"r\xff\xff\xff\xff.",
        b"." * 3,
    ],
)
def test_crafted_pickles_end_in_one_sentence(code, tmp_path):
    """They are refused at once, without allocating the memory they request."""
    path = tmp_path / "x.pth"
    pickled(path, b"}.")
    assert load_pth(path) == {}  # the archive itself is valid; only the pickle is refused
    pickled(path, code)
    with pytest.raises(InputError) as caught:
        open_checkpoint(path)
    assert len(str(caught.value)) < 1000
    assert vars(argparse.Namespace(a=1)) == {"a": 1}  # no class was changed


def test_what_torch_reads_is_what_is_checked(tmp_path):
    """torch ignores case in archives, and reads a legacy file with an appended archive as a legacy file."""
    evil = b"\x80\x02cposix\nsystem\n" + text("true") + b"\x85R."
    with zipfile.ZipFile(tmp_path / "case.pth", "w") as archive:
        archive.writestr("a/DATA.PKL", evil)
        archive.writestr("a/data.pkl", b"\x80\x02}.")
    with pytest.raises(InputError, match="is a zip file but no"):
        load_pth(tmp_path / "case.pth")
    torch.save({"model": {}}, tmp_path / "good.pth")
    save(Calls(os.system, "true"), tmp_path / "both.pth", "legacy")
    with (tmp_path / "both.pth").open("ab") as stream:
        stream.write((tmp_path / "good.pth").read_bytes())
    with pytest.raises(InputError, match=r"wants to call (posix|nt)\.system"):
        load_pth(tmp_path / "both.pth")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_every_protocol_opens(container, protocol, tmp_path):
    value = torch.arange(6.0).reshape(2, 3).T  # not contiguous
    content = {"model": OrderedDict(x=value), "args": argparse.Namespace(a=[1, (2.5, None)]), "size": torch.Size([2])}
    save(content, tmp_path / "x.pth", container, protocol)
    loaded = load_pth(tmp_path / "x.pth")
    assert torch.equal(loaded["model"].pop("x"), value)
    assert loaded["args"] == content["args"]
    assert loaded["size"] == torch.Size([2])


def test_objects_of_libraries_become_stand_ins(tmp_path):
    import numpy as np

    path = tmp_path / "x.pth"
    torch.save(
        {"x": torch.ones(2), "scalar": np.float64(3), "array": np.ones(2), "args": argparse.Namespace(a=1)}, path
    )
    content = load_pth(path)
    assert torch.equal(content["x"], torch.ones(2))
    assert content["args"] == argparse.Namespace(a=1)
    assert type(content["array"]).__module__.startswith("conditional_detr")


def test_settings_of_lightning_become_stand_ins(tmp_path):
    """As it saves settings of OmegaConf."""
    code = (
        b"}"
        + text("hyper_parameters")
        + b"comegaconf.dictconfig\nDictConfig\n)\x81}"
        + text("x")
        + b"ctyping\nAny\nsbs."
    )
    pickled(tmp_path / "x.ckpt", code)
    assert type(load_pth(tmp_path / "x.ckpt")["hyper_parameters"]).__name__ == "DictConfig"


def test_damaged_files_are_one_sentence(tmp_path):
    good = tmp_path / "good.pth"
    torch.save({"model": {"a": torch.zeros(100)}}, good)
    data = good.read_bytes()
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "cut.pth").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.pth").write_text("hello, this is not a model")
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>Quota exceeded</html>")
    (tmp_path / "pointer.pth").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 174070784\n"
    )
    with zipfile.ZipFile(tmp_path / "photos.pth", "w") as archive:
        archive.writestr("a.jpg", "x")
    with zipfile.ZipFile(good) as archive, zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb:
        for name in archive.namelist():
            bomb.writestr(name, archive.read(name) if "data/0" not in name else bytes(10**7))
    torch.save({"model": {"a": torch.zeros(1).expand(10**9)}}, tmp_path / "large.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pth")
    sentences = {
        "empty": "is empty",
        "cut": "damaged or no .pth file",
        "text": "damaged or no .pth file",
        "page": "is a web page, not weights",
        "pointer": "is a Git LFS pointer, not the weights themselves; run: git lfs pull",
        "photos": "is a zip file but no .pth file of weights",
        "bomb": "is compressed",
        "large": "claims to hold more than its size",
        "script": "no .pth file of weights",
        "nowhere": "can't be read",
    }
    for name, sentence in sentences.items():
        for load in (load_pth, load_weights):
            with pytest.raises(InputError, match=sentence) as caught:
                load(tmp_path / f"{name}.pth")
            assert f"{name}.pth" in str(caught.value)
            assert "\n" not in str(caught.value)


def test_the_content_decides_and_not_the_name(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "x.pth")
    torch.save({"a": torch.ones(2)}, tmp_path / "x.safetensors")
    torch.save({"a": torch.ones(2)}, tmp_path / "old.safetensors", _use_new_zipfile_serialization=False)
    for name in ("x.pth", "x.safetensors", "old.safetensors"):
        assert torch.equal(load_weights(tmp_path / name)["a"], torch.ones(2))
    for name in ("page.safetensors", "pointer.safetensors"):
        (tmp_path / name).write_text(
            "<html>" if name.startswith("page") else "version https://git-lfs.github.com/spec/v1"
        )
        with pytest.raises(InputError, match=r"is a web page|is a Git LFS pointer"):
            load_weights(tmp_path / name)


def test_a_pickled_model_is_refused_with_what_to_save(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"wants to call torch\.nn\.modules\.linear\.Linear.*save the state_dict\(\)"):
        load_pth(tmp_path / "x.pth")
    pickled(tmp_path / "x.pth", b"cultralytics.nn.tasks\nDetectionModel\n)R.")
    with pytest.raises(InputError, match="holds a model of Ultralytics"):
        load_pth(tmp_path / "x.pth")


def test_a_safetensors_header_can_not_claim_more_than_the_file(tmp_path):
    header = b'{"a":{"dtype":"F32","shape":[1000000000,1000],"data_offsets":[0,4000000000000]}}'
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    (tmp_path / "config.json").write_text('{"model_type": "conditional_detr", "id2label": {"0": "a"}}')
    with pytest.raises(InputError, match=r"model\.safetensors can't be read"):
        open_checkpoint(tmp_path)
    file.write_bytes(struct.pack("<Q", 10**15) + header)
    with pytest.raises(InputError, match=r"model\.safetensors can't be read"):
        open_checkpoint(tmp_path)


# --- fuzz: real files with changed bytes end in our error or in tensors ---

SAMPLES = ["sample_official.pth", "sample_mmdet.pth", "sample_mmdet_slim.pth", "sample_mmdet_train.pth"]
fuzz = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def mutated(data: bytes, changes: list[tuple[float, int]], cut: float) -> bytes:
    """Replace bytes at relative positions and cut off the end."""
    out = bytearray(data)
    for position, value in changes:
        out[int(position * (len(out) - 1))] = value
    return bytes(out[: max(1, int(len(out) * cut))])


CHANGES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8)
CUT = st.one_of(st.just(1.0), st.floats(0, 1))


@needs_shared("reference/sample_official.pth")
@pytest.mark.parametrize("name", SAMPLES)
@fuzz
@given(changes=CHANGES, cut=CUT)
def test_changed_files(name, changes, cut, tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(mutated((SHARED / "reference" / name).read_bytes(), changes, cut))
    try:
        open_checkpoint(path)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017


@needs_shared("reference/sample_official.pth")
@pytest.mark.parametrize("name", ["sample_official.pth", "sample_mmdet_train.pth"])
@fuzz
@given(changes=CHANGES)
def test_changed_pickles_in_whole_archives(name, changes, tmp_path):
    """A valid archive with a damaged pickle passes the checksums of zip."""
    path = tmp_path / "x.pth"
    target = io.BytesIO()
    with zipfile.ZipFile(SHARED / "reference" / name) as archive, zipfile.ZipFile(target, "w") as out:
        for entry in archive.namelist():
            data = archive.read(entry)
            out.writestr(entry, mutated(data, changes, 1.0) if entry.endswith("data.pkl") else data)
    path.write_bytes(target.getvalue())
    try:
        open_checkpoint(path)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf")
    shape = BackboneShape(block="basic", depths=(1,), widths=(16,), stem_width=8)
    save_checkpoint(randomized(ModelSettings(backbone=shape, batch_norm="frozen", **SMALL)), folder)
    return folder


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
@fuzz
@given(changes=CHANGES, cut=CUT)
def test_changed_folders(name, changes, cut, folder, tmp_path):
    """In the weights only the header is changed, which holds the structure; other bytes are numbers."""
    for path in folder.iterdir():
        data = path.read_bytes()
        if path.name == name:
            end = 8 + struct.unpack("<Q", data[:8])[0] if path.suffix == ".safetensors" else len(data)
            data = mutated(data[:end], changes, cut) + data[end:]
        (tmp_path / path.name).write_bytes(data)
    try:
        open_checkpoint(tmp_path)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.filterwarnings("ignore:.*does not say how many attention heads")
@settings(fuzz, max_examples=10)
@given(
    values=st.dictionaries(
        st.sampled_from(["model", "args", "state_dict", "meta", "conditional_detr", "epoch"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=6,
        ),
    )
)
def test_strange_contents_beside_good_weights(values, folder, tmp_path):
    """Entries besides the weights can be anything."""
    state = read_state(load_file(folder / "model.safetensors"), folder)
    for layout, key in (("official", "model"), ("mmdetection", "state_dict")):
        weights, _ = write_state(state.values, LAYOUTS[layout], "conditional")
        torch.save({**values, key: weights}, tmp_path / "x.pth")
        try:
            open_checkpoint(tmp_path / "x.pth", dilation=False)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_half_precision_is_widened(folder, tmp_path):
    values = {name: value.half() for name, value in load_file(folder / "model.safetensors").items()}
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    save_file(values, tmp_path / "model.safetensors")
    model = open_checkpoint(tmp_path).model
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert torch.equal(model.input_proj.bias, values["model.input_projection.bias"].float())
