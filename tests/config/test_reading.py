"""Files and ``key=value`` overrides are read by YAML 1.2; mistakes are refused in one sentence."""

import contextlib
import os
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conditional_detr.config import Settings, load_settings, setting_keys, settings_from
from conditional_detr.errors import InputError

PUBLISHED = "conditional-detr_r50_8xb2-50e_coco"


def value_of(override: str) -> object:
    """Return the value that an override sets in the published preset."""
    section, _, key = override.partition("=")[0].partition(".")
    return getattr(getattr(load_settings(PUBLISHED, [override]), section), key)


def refused(text: str | bytes, sentence: str, file: Path) -> None:
    """Check that a file of this text is refused quickly and in one line."""
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    started = time.process_time()
    with pytest.raises(InputError, match=sentence) as caught:
        load_settings(file)
    assert time.process_time() - started < 5
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_overrides_have_types():
    values = load_settings(
        PUBLISHED,
        ["data.root=/data/coco", "train.lr=2e-4", "data.short_sides=[320, 352]", "evaluation.max_dets=300"],
    )
    assert values.data.root == Path("/data/coco")
    assert values.train.lr == 2e-4
    assert values.data.short_sides == (320, 352)
    assert values.evaluation.max_dets == 300


def test_values_are_what_they_look_like():
    """Unlike in YAML 1.1, ``no`` is not a boolean. Names keep the text of a number."""
    values = load_settings(PUBLISHED, ["train.mixed_precision=no", "train.name=001", "data.root=2024"])
    assert (values.train.mixed_precision, values.train.name, values.data.root) == ("no", "001", Path("2024"))
    assert load_settings(PUBLISHED, ["data.root=null", "train.scale_lr=true"]).data.root is None


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("train.seed=010", 10),
        ("train.seed=0o10", 8),
        ("train.seed=0x1F", 31),
        ("train.seed=+3", 3),
        ("model.frozen_stages=-1", -1),
        ("train.lr=1e-3", 1e-3),
        ("train.lr=1E-3", 1e-3),
        ("train.lr=1.", 1.0),
        ("train.lr=.5", 0.5),
        ("train.lr=0", 0.0),
        ("evaluation.max_dets=~", None),
        ("evaluation.max_dets=Null", None),
        ("evaluation.max_dets=", None),
        ("train.scale_lr=True", True),
        ("train.scale_lr=false", False),
        ("train.seed=5 # five", 5),
    ],
)
def test_values_of_yaml_1_2(override, value):
    found = value_of(override)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "override",
    [
        *(
            "train.seed=1:30",
            "train.seed=1_000",
            "train.seed=0b11",
            "train.seed=1.5",
            "train.seed=true",
            "train.seed='5'",
        ),
        *("train.lr=1_0.5", "train.lr=.nan", "train.lr=.inf", "train.lr=-.INF", "train.lr=1e999", "train.lr=false"),
        *("train.scale_lr=1", "train.scale_lr=yes", "train.scale_lr=on", "train.lr=2024-01-01", "train.epochs=.inf"),
        *("train.epochs=" + "9" * 100_000, "train.lr=" + "9" * 100_000, "train.epochs=0x" + "f" * 100_000),
    ],
)
def test_what_is_no_such_value_is_refused(override):
    with pytest.raises(InputError) as caught:
        load_settings(PUBLISHED, [override])
    assert override.partition("=")[0] in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_date_is_text(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("train: {name: 2024-01-01}")
    assert load_settings(file).train.name == "2024-01-01"


@pytest.mark.parametrize("start", ["~", "~root"])
def test_home_directories(start, tmp_path):
    home = os.path.expanduser(start)
    if home == start:
        pytest.skip("there is no such user here")
    keys = ("data.root", "data.val_images", "train.output", "model.backbone_weights")
    found = load_settings(PUBLISHED, [f"{key}={start}/x" for key in keys])
    file = tmp_path / "x.yaml"
    file.write_text(f"data: {{root: {start}/x, val_images: {start}/x}}\ntrain: {{output: {start}/x}}")
    for values in (found, load_settings(file)):
        assert {values.data.root, values.data.val_images, values.train.output} == {Path(home) / "x"}
    assert found.model.backbone_weights == Path(home) / "x"
    assert load_settings(PUBLISHED, [f"model.init_from={start}/x"]).model.init_from == str(Path(home) / "x")
    assert load_settings(PUBLISHED, ["train.name=~x"]).train.name == "~x"


def test_home_of_nobody():
    with pytest.raises(InputError, match=r"data\.root: ~no-such-user is no home directory here; write the whole path$"):
        load_settings(PUBLISHED, ["data.root=~no-such-user/x"])


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("train.epoch=3", r"unknown key 'train\.epoch' \(did you mean 'train\.epochs'\?\)"),
        ("model.query=3", r"did you mean 'model\.queries'"),
        ("epochs=3", r"unknown key 'epochs' \(did you mean 'train\.epochs'"),
        ("trian.epochs=3", r"unknown key 'trian' \(did you mean 'train'"),
        ("train.epochs=many", r"train\.epochs: .*integer.* got 'many'"),
        ("train.epochs=0", r"train\.epochs: .*greater than 0, got 0"),
        ("model.backbone=resnet52", r"model\.backbone: must be one of resnet18, .*, got 'resnet52'"),
        ("model.backbone={blok: basic}", r"blok: extra inputs are not permitted"),
        ("model.frozen_stages=7", r"'auto' or input should be less than or equal to 4, got 7"),
        ("model.heads=7", r"channels must be a multiple of 4 and of heads \(7\)"),
        ("data.flip=1.5", r"data\.flip: .*less than or equal to 1"),
        ("train.epochs", "not of the form key=value"),
        ("data.short_sides=[", r"data\.short_sides: '\[' is not a YAML value"),
        ("preset.x=1", "unknown key 'preset.x'"),
        ("version=1", "unknown key 'version'"),
        ("version.x=1", "unknown key 'version'"),
        (
            "train.drop_epoch=40",
            r"train\.drop_epoch is now train\.drop_at, a fraction of the run: train\.drop_at=0\.8$",
        ),
        ("train.name=a\0b", r"train\.name: 'a\\x00b' has characters that no name can have"),
        ("train.output=a\udcff", r"train\.output: 'a\\udcff' has characters that no name can have"),
        (
            "train.name=../x",
            r"train\.name: must be the name of one folder, got '\.\./x'; train\.output sets the folder",
        ),
        ("train.name=/x", r"train\.name: must be the name of one folder"),
        ("train.name=..", r"train\.name: must be the name of one folder"),
        ("train.name=a\\b", r"train\.name: must be the name of one folder"),
        ("train.name=a\nb", r"train\.name: must be the name of one folder"),
        ("train.name=" + "雪" * 100, r"train\.name: must be at most 200 bytes long, got 300; give a shorter name"),
        ("train.name=" + "x" * 10**6, r"'train\.name': the value has 1000000 characters, too many"),
        ("data.root=", r"data\.root is empty; write a path, or leave it out"),
        ("train.output=", r"train\.output is empty"),
        ("model.init_from=", r"model\.init_from is empty"),
        ("data.root=~" + "x" * 10_000, r"data\.root: '~x+\.\.\. \(10003 characters\) is no home directory here"),
        ("=", "unknown key ''"),
        ("=1", "unknown key ''"),
        (".=1", r"unknown key '\.'"),
        ("a.b.c=1", "unknown key 'a'"),
        ("train..epochs=1", r"unknown key 'train\.\.epochs' \(did you mean 'train\.epochs'"),
        ("train.epochs.x=1", r"unknown key 'train\.epochs\.x' \(did you mean 'train\.epochs'"),
        ("train.epochs =1", r"unknown key 'train\.epochs ' \(did you mean 'train\.epochs'"),
        ("tr\u0430in.epochs=1", r"did you mean 'train'"),  # a Cyrillic a
        ("train.epochs=\u0663", r"train\.epochs: .*integer"),  # an Arabic digit
        ("😀=1", "unknown key '😀'"),
        ("k" * 10**6 + "=1", r"unknown key 'k+\.\.\. \(1000002 characters\)"),
    ],
)
def test_wrong_overrides_are_refused(override, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        load_settings(PUBLISHED, [override])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_many_overrides_are_read_in_time():
    started = time.process_time()
    overrides = [f"train.epochs={i}" for i in range(1, 3001)]
    assert load_settings(PUBLISHED, overrides).train.epochs == 3000  # the last one counts
    assert time.process_time() - started < 2


def test_wrong_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="did you mean 'conditional-detr_r50_8xb2-50e_coco'"):
        load_settings("conditional-detr_r50_8xb2")
    with pytest.raises(InputError, match="can't be read"):
        load_settings(tmp_path / "no.yaml")
    with pytest.raises(InputError, match="can't be read"):
        load_settings("a\0b.yaml")
    with pytest.raises(InputError, match="can't be read"):
        load_settings("a" * 5000 + ".yaml")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(InputError, match=r"folder\.yaml is not a file"):
        load_settings(tmp_path / "folder.yaml")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.yaml")
        with pytest.raises(InputError, match=r"pipe\.yaml is not a file"):
            load_settings(tmp_path / "pipe.yaml")


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [", r"x\.yaml is not valid YAML: .*\(line 1, column 5\)"),
        ("- 1", r"must hold sections with keys \(model: \{queries: 100\}\), got \[1\]"),
        ("no", "must hold sections"),
        ("[]", "must hold sections"),
        (BOMB, r"write the value in place of \*a \(line 2"),
        ("model: &m {heads: 4}\ntrain: {<<: *m}", r"write the value in place of \*m"),
        ("train: {<<: {epochs: 3}}", r"unknown key 'train\.<<'"),
        ("&a [*a]", r"write the value in place of \*a"),
        ("model: " + "[" * 100_000, "nested deeper than 20"),
        ("model: " + "{a: " * 50_000, "nested deeper than 20"),
        ("model:\n " + "- " * 100_000 + "x", "nested deeper than 20"),
        ("data: {short_sides: [" + "9," * 100_000 + "]}", "more than 10000 values"),
        ("data: {short_sides: [" + "a," * 9_000 + "]}", r"data\.short_sides: input should be a valid integer, got 'a'"),
        ("".join(f"k{i}: 1\n" for i in range(9_000)), "unknown key 'k0'"),
        ("#" * 1_000_000, "too long for settings"),
        ("train: {name: '" + "x" * 200_000 + "'}\ndata: 3", "data: input should be"),
        ("train: {seed: " + "1" * 100_000 + "}", "a number has 100000 characters"),
        ("train: {? " + "k" * 100_000 + " : 1}", r"unknown key 'train\.kkkk"),
        ("train: !!python/object/apply:os.system [ls]", "leave out the tag 'tag:yaml.org,2002:python/object/apply:os"),
        ("train: {epochs: !!int '3'}", "leave out the tag 'tag:yaml.org,2002:int'"),
        ("!x train: {}", "leave out the tag '!x'"),
        ("train: {epochs: 3, epochs: 4}", r"'epochs' is given twice \(line 1, column 20\)"),
        ("train: {}\ntrain: {}", r"'train' is given twice"),
        ("1: 2", "unknown key '1'"),
        ("null: 2", "unknown key 'null'"),
        ("train: {true: 2}", r"unknown key 'train\.true'"),
        ("[a]: 2", "a key must be a name"),
        ("{a: b}: 2", "a key must be a name"),
        ("train: {}\n---\ntrain: {}", "more than one document"),
        ("train: {epochs: \0 3}", "not valid YAML: .*#x0000"),
        ('train: {name: "a\\0b"}', "characters that no name can have"),
        ('train: {name: "\\UFFFFFFFF"}', "not valid YAML"),
        ('train: {name: "\\uD800"}', "characters that no name can have"),
        ("%YAML " + "9" * 100_000 + ".1\n---\na: 1", "not valid YAML"),
        ("train:\n\tepochs: 3", r"not valid YAML: .*'\\t'"),
        (b"train: {name: \xff}", "is not text in UTF-8"),
        ("train: {epochs: 3}".encode("utf-16"), "is not text in UTF-8"),
        ("train: 3", "train: input should be a valid dictionary"),
        ("train: [3]", "train: input should be a valid dictionary"),
        ("preset: 3", "preset: input should be a valid string"),
        ("preset: ../../x", r"preset: must be the name of one folder, got '\.\./\.\./x'"),
        ("preset: " + "x" * 1000, "preset: must be at most 200 bytes long"),
        ("data: {root: ''}", r"data\.root is empty"),
        (
            "version: 2\nnonsense: 3",
            r"written by a newer conditional-detr \(config version 2; this one reads up to 1\); upg",
        ),
        ("version: 1.0", r"version: must be a whole number, got 1\.0"),
        ("version: true", "version: must be a whole number"),
        ("version: -1", "version: must be a whole number"),
        ("version: '1'", "version: must be a whole number"),
        ("version:", "version: must be a whole number"),
        ("version: 1\ntrain: {drop_epoch: 3}", r"train\.drop_epoch is now train\.drop_at"),
        ("train: {drop_epoch: 3, drop_at: 0.5}", r"train\.drop_epoch is now train\.drop_at"),
        ("train: {drop_epoch: soon}", r"train\.drop_epoch is now train\.drop_at"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_wrong_text_is_refused(text, sentence, tmp_path):
    refused(text, sentence, tmp_path / "x.yaml")


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "~", "{}", "train:\n", "\ufefftrain: {epochs: 50}", "---\n{}\n...\n"]
)
def test_little_text_is_enough(text, tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text(text, encoding="utf-8")
    assert load_settings(file) == Settings()


@settings(
    max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.one_of(
        st.text(max_size=60),
        st.text("ab:-[]{}&*!%?|>'\"#,~<@\\xuU0123.eE+_ \n\t", max_size=80),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.dates()
            | st.binary(max_size=3)
            | st.text("ab~."),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["version", "train", "model", "data", "epochs", "root", "backbone"]), inner
                )
            ),
            max_leaves=10,
        ).map(lambda value: yaml.safe_dump(value)),
    ),
    st.sampled_from(setting_keys()),
)
def test_any_text_is_read_or_refused(tmp_path, text, key):
    """The text is tried as a file, as the value of a setting, and as a whole override."""
    file = tmp_path / "x.yaml"
    file.write_bytes(text.encode(errors="surrogatepass"))
    for read in (
        lambda: load_settings(file),
        lambda: load_settings(PUBLISHED, [f"{key}={text}"]),
        lambda: load_settings(PUBLISHED, [text]),
    ):
        with contextlib.suppress(InputError):
            found = read()
            again = tmp_path / "again.yaml"
            again.write_text(found.to_yaml(), encoding="utf-8")
            assert load_settings(again) == found


OLD = "train: {epochs: 4, drop_epoch: 3}"  # as version 0.1.0 wrote it


def test_files_of_older_versions_are_migrated(tmp_path):
    file = tmp_path / "x.yaml"
    for text, part in (
        (OLD, 0.75),
        (f"version: 0\n{OLD}", 0.75),
        ("train: {drop_epoch: 10}", 0.2),  # of 50 epochs, the default
        ("train: {epochs: 12, drop_epoch: 40}", 1.0),  # the drop was after the end of the run
    ):
        file.write_text(text)
        assert load_settings(file).train.drop_at == part
    assert load_settings(file, ["train.drop_at=0.5"]).train.drop_at == 0.5


@pytest.mark.parametrize("name", ["0o10", "1e3", "010", "1.", "no", "~", "1:30", "2024-01-01", "a: b", "-", ".5"])
def test_names_survive_a_file(name, tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text(load_settings(PUBLISHED, [f"train.name={name}"]).to_yaml())
    assert load_settings(file).train.name == name


def test_files_name_their_version_first(tmp_path):
    text = settings_from({}).to_yaml()
    assert text.startswith("version: 1\npreset:")
    file = tmp_path / "x.yaml"
    file.write_text(text)
    assert load_settings(file) == Settings()
