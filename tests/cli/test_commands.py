"""The command as a user runs it: exit codes, errors of one sentence, and written files."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import SafetensorError

from conditional_detr.checkpoints.conversion import convert
from conditional_detr.checkpoints.safe_load import load_pth
from conditional_detr.cli import demo
from conditional_detr.cli.main import main
from conditional_detr.cli.predict import find_images
from conditional_detr.config import preset_names, setting_keys
from conditional_detr.errors import InputError
from conditional_detr.runs import RunFolder
from conditional_detr.training import starting
from tests.checkpoints.models import randomized, save_checkpoint, small
from tests.conftest import SHARED, needs_shared, no_room_for_files_over
from tests.docs.blocks import documents
from tests.explain.test_convergence import VERSION_3
from tests.training.test_loop import changed

ROOT = Path(__file__).parents[2]


SCRIPT = Path(sys.executable).parent / "cdetr"


def cdetr(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, because starting Python and torch would take most of the time of these tests."""
    command = [str(SCRIPT), *map(str, arguments)]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("default")
        patch.setattr(warnings, "formatwarning", warnings.formatwarning)  # main changes it; restored at the end
        patch.setattr(warnings, "showwarning", _to_standard_error)  # not into pytest's summary
        patch.setattr(sys, "argv", command)
        patch.setenv("COLUMNS", "200")
        patch.chdir(cwd or Path.cwd())
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as end:
                code = end.code or 0
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())


def _to_standard_error(message: Warning, *_: object, **__: object) -> None:
    sys.stderr.write(warnings.formatwarning(message, UserWarning, "", 0))


def refused(result: subprocess.CompletedProcess[str], sentence: str) -> None:
    """Check for exit code 2 and an error of one line, without a traceback."""
    assert result.returncode == 2, result.stderr
    assert re.search(sentence, result.stderr), result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.fixture(scope="module")
def run(shapes_root, tmp_path_factory) -> Path:
    """Train a run of two steps and return its folder."""
    from conditional_detr.config import load_settings

    settings = load_settings("conditional-detr_tiny_shapes", [f"data.root={shapes_root}", "train.max_steps=2"])
    output = tmp_path_factory.mktemp("runs")
    return starting.train(changed(settings, train={"output": output, "name": "run"})).run.path


def test_help_is_quick_and_loads_no_torch():
    def seconds(*command):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - started

    pairs = [(seconds(SCRIPT, "--help"), seconds(sys.executable, "-c", "import typer")) for _ in range(3)]
    assert min(ours / typers for ours, typers in pairs) < 6  # .6 s where typer alone takes .1
    code = "import sys, conditional_detr.cli.main; assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


COMMANDS = [
    "train",
    "evaluate",
    "predict",
    "batch",
    "attention",
    "compare",
    "benchmark",
    "convert",
    "export",
    "push",
    "serve",
    "app",
    "demo",
    "dataset",
    "dataset check",
    "dataset show",
    "dataset convert",
    "dataset split",
    "dataset shapes",
    "dataset scenes",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    result = cdetr(*command.split(), "--help")
    assert result.returncode == 0
    assert cdetr(*command.split(), "-h").stdout == result.stdout


def test_the_command_by_other_names():
    assert cdetr("-h").stdout == cdetr("--help").stdout
    assert "--install-completion" in cdetr("-h").stdout
    module = [sys.executable, "-m", "conditional_detr"]
    assert subprocess.run([*module, "--version"], check=True, capture_output=True, text=True).stdout == (
        cdetr("--version").stdout
    )
    assert subprocess.run([*module, "train", "nothing"], capture_output=True).returncode == 2


def test_shell_completion():
    completed = subprocess.run(
        [SCRIPT],
        env={**os.environ, "_CDETR_COMPLETE": "complete_bash", "COMP_WORDS": "cdetr tr", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
    )
    assert completed.stdout.split() == ["train"]


def test_version_and_presets():
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?\n", cdetr("--version").stdout)
    header, *rows = cdetr("train", "--presets").stdout.splitlines()
    assert re.split("  +", header) == ["preset", "what it is for"]
    assert [row.split()[0] for row in rows] == preset_names()
    assert all(re.fullmatch(r"\S+  +\S.{20,}\.", row) for row in rows)
    listed = cdetr("train", "--settings").stdout
    assert [line.partition("=")[0] for line in listed.splitlines()[::3]] == setting_keys()


def test_settings_are_found_by_words():
    found = cdetr("train", "--settings", "train.lr_backbone").stdout.splitlines()
    assert found[0].startswith("train.lr_backbone=")
    assert found[1] == "    number from 0"
    assert found[2].strip()
    assert len(found) == 3
    several = cdetr("train", "--settings", "batch", "NORM").stdout
    assert "model.batch_norm=auto\n    one of auto, frozen, trained\n" in several
    assert "train.batch_size" not in several
    assert "resnet101" in cdetr("train", "--settings", "model.backbone").stdout
    refused(cdetr("train", "--settings", "train.learning"), "no setting matches 'train.learning'")


def test_train_resume_and_what_it_says(shapes_root, tmp_path):
    arguments = [f"data.root={shapes_root}", "train.max_steps=3", f"train.output={tmp_path}", "train.log_every=1"]
    result = cdetr("train", "conditional-detr_tiny_shapes", *arguments)
    assert result.returncode == 0, result.stderr
    run = tmp_path / "conditional-detr_tiny_shapes"
    assert f"cdetr predict {run}" in result.stdout
    assert "best AP" in result.stdout
    assert "rectangle" in result.stderr
    assert f"augmented    {run}/plots/augmented.jpg" in result.stdout
    assert (run / "plots" / "augmented.jpg").exists()
    assert f"report       {run}/report/index.html" in result.stdout
    assert "step 1/3" in result.stderr
    assert (run / "config.yaml").exists()
    again = cdetr("train", "--resume", run)
    assert again.returncode == 0, again.stderr
    further = cdetr("train", "--resume", run, "train.max_steps=4", "evaluation.report=false")
    assert further.returncode == 0, further.stderr
    assert "step 4/4" in further.stderr
    refused(
        cdetr("train", "--resume", run, "model.channels=128"),
        rf"model\.channels can't change within a run; .*: cdetr train {run}/config\.yaml model\.channels=128 \(model\.init_from",
    )
    repeated = cdetr("train", run / "config.yaml", "train.name=copy", "train.max_steps=1", "evaluation.report=false")
    assert repeated.returncode == 0, repeated.stderr
    assert (tmp_path / "copy" / "model" / "config.json").exists()


def test_mistakes_in_training_are_refused(shapes_root, tmp_path):
    preset = "conditional-detr_tiny_shapes"
    refused(cdetr("train"), "name a preset")
    refused(cdetr("train", "conditional-detr_tiny"), "did you mean")
    refused(cdetr("train", preset, "train.epoch=1"), r"did you mean 'train\.epochs'")
    refused(cdetr("train", preset, cwd=tmp_path), r"set data\.root")
    refused(cdetr("train", preset, f"data.root={tmp_path}", cwd=tmp_path), "holds no train annotations")
    refused(cdetr("train", "--resume", tmp_path), "not a run folder")
    refused(cdetr("train", preset, "--resume", tmp_path), "leave out")
    weights = f"model.backbone_weights={tmp_path / 'no.pth'}"
    refused(cdetr("train", preset, f"data.root={shapes_root}", weights, cwd=tmp_path), r"no\.pth can't be read")


def test_evaluate(run, shapes_root, tmp_path):
    table = cdetr("evaluate", run)
    assert table.returncode == 0, table.stderr
    assert "AP50" in table.stdout
    assert "triangle" in table.stdout
    assert "100 detections per image" in table.stdout
    file = tmp_path / "results.json"
    result = cdetr("evaluate", run, "evaluation.max_dets=20", "--json", "--save-predictions", file)
    values = json.loads(result.stdout)
    assert values["images"] == 11
    assert values["max_dets"] == 20
    assert {row["name"] for row in values["per_class"]} == {"rectangle", "ellipse", "triangle"}
    saved = json.loads(file.read_text())
    assert len(saved) == 11 * 20
    assert saved[0].keys() == {"image_id", "category_id", "bbox", "score"}
    other = cdetr("evaluate", run / "model", f"data.root={shapes_root}", "evaluation.max_dets=20", "--json")
    assert json.loads(other.stdout) == values  # the checkpoint alone knows the image sizes
    recorded = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert json.loads(cdetr("evaluate", run, "--json").stdout)["AP"] == pytest.approx(recorded["AP"], abs=1e-6)


def test_saved_predictions_replace_nothing_else(run, shapes_root, tmp_path):
    annotations = shapes_root / "annotations" / "instances_val2017.json"
    before = annotations.read_bytes()
    refused(cdetr("evaluate", run, "--save-predictions", annotations), "is not a file of COCO results")
    assert annotations.read_bytes() == before
    (tmp_path / "link.json").symlink_to(tmp_path / "elsewhere.json")
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("link.json", "pipe.json", "."):
        refused(cdetr("evaluate", run, "--save-predictions", tmp_path / name), "is a link, a folder or a device")


def test_a_full_disk_does_not_cost_the_metrics(run, tmp_path):
    (tmp_path / "results.json").write_text("[]")
    with no_room_for_files_over(1000):
        result = cdetr("evaluate", run, "--save-predictions", tmp_path / "results.json")
    assert result.returncode == 1
    assert "AP50" in result.stdout
    assert "error: " in result.stderr
    assert "File too large" in result.stderr
    assert (tmp_path / "results.json").read_text() == "[]"
    assert os.listdir(tmp_path) == ["results.json"]


@pytest.mark.parametrize("to", ["official", "mmdetection"])
def test_a_full_disk_leaves_no_part_of_a_checkpoint(to, tmp_path):
    save_checkpoint(randomized(small()), tmp_path / "model")
    with no_room_for_files_over(2**20):
        result = cdetr("convert", tmp_path / "model", tmp_path / "new.pth", "--to", to)
    assert result.returncode == 1
    assert re.fullmatch("error: .*File too large\n", result.stderr)
    assert os.listdir(tmp_path) == ["model"]


def test_a_failed_conversion_is_not_in_the_way_of_the_next(tmp_path):
    save_checkpoint(randomized(small()), tmp_path / "model")
    with no_room_for_files_over(2**20), contextlib.suppress(SafetensorError):
        cdetr("convert", tmp_path / "model", tmp_path / "new", "--to", "huggingface")
    assert os.listdir(tmp_path / "new") == []
    result = cdetr("convert", tmp_path / "model", tmp_path / "new", "--to", "huggingface")
    assert result.returncode == 0, result.stderr


def test_mistakes_in_evaluation_are_refused(run, tmp_path):
    refused(cdetr("evaluate", tmp_path / "no"), "does not exist; give a run or checkpoint folder")
    refused(cdetr("evaluate", run, "train.epochs=1"), r"takes data\.\* and evaluation\.\*")
    refused(cdetr("evaluate", run, "data.rot=x"), r"did you mean 'data\.root'")


def test_predict(run, shapes_root, tmp_path):
    folder = shapes_root / "val2017"
    result = cdetr("predict", run, folder, "--threshold", 0, "--batch-size", 4, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "11 images" in result.stdout
    pictures = sorted((tmp_path / "predictions").glob("*.jpg"))
    assert len(pictures) == 11
    with Image.open(pictures[0]) as picture:
        assert picture.size == (96, 96)
    data = json.loads((tmp_path / "predictions" / "detections.json").read_text())
    assert len(data["annotations"]) == 11 * 60
    assert Path(data["images"][0]["file_name"]) == folder / "000001.png"
    assert {"image_id", "category_id", "category_name", "bbox", "score"} <= data["annotations"][0].keys()


def test_predict_json_writes_nothing(run, shapes_root, tmp_path):
    result = cdetr("predict", run, shapes_root / "val2017" / "00000[12].png", "--json", "--threshold", 0, cwd=tmp_path)
    assert {row["image_id"] for row in json.loads(result.stdout)["annotations"]} == {1, 2}
    assert list(tmp_path.iterdir()) == []


@needs_shared("odd-images/manifest.json")
def test_predict_reports_and_skips_broken_files(run, tmp_path):
    manifest = json.loads((SHARED / "odd-images" / "manifest.json").read_text())["files"]
    broken = [entry["file"] for entry in manifest if entry["expect"] == "error"]
    result = cdetr("predict", run, SHARED / "odd-images", "--out", tmp_path / "out", "--batch-size", 3)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "Warning" not in result.stderr
    skipped = [line for line in result.stderr.splitlines() if line.startswith("skipped: ")]
    assert len(skipped) == len(broken)
    assert all(any(name in line for line in skipped) for name in broken)
    assert f"{len(broken)} of {len(manifest)} files" in result.stderr
    assert (tmp_path / "out" / "UPPER CASE ünïcode name.jpg").exists()
    assert len(list((tmp_path / "out").glob("*.jpg"))) == len(manifest) - len(broken)


def test_predict_never_replaces_an_input(run, shapes_root, tmp_path):
    picture = tmp_path / "photos" / "street.jpg"
    picture.parent.mkdir()
    Image.open(shapes_root / "val2017" / "000001.png").save(picture)
    before = picture.read_bytes()
    refused(cdetr("predict", run, picture, "--out", picture.parent), "where pictures are written")
    assert picture.read_bytes() == before
    for folder in (".", ".", picture.parent):  # later calls do not use pictures of the first as inputs
        result = cdetr("predict", run, folder, cwd=picture.parent)
        assert "in 1 image;" in result.stdout, result.stderr


def test_inputs_of_predict(tmp_path):
    for name in ("b.JPG", "a.png", "notes.txt", "sub/c.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = find_images([str(tmp_path), str(tmp_path / "*.png"), str(tmp_path / "notes.txt")])
    assert [path.name for path in found] == ["a.png", "b.JPG", "c.webp", "notes.txt"]
    with pytest.raises(InputError, match="no file, folder or pattern"):
        find_images([str(tmp_path / "*.bmp")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        find_images([str(tmp_path / "empty")])


def test_demo_names_what_it_made(tmp_path, monkeypatch, capsys):
    """The whole demo runs on a few images and prints what it wrote."""
    monkeypatch.setattr(demo, "IMAGES", {"train": 32, "val": 4, "test": 4})
    out = tmp_path / "demo"
    demo.command(out, seed=0)
    text = capsys.readouterr().out
    assert re.search(r"AP 0\.\d+, AP50 0\.\d+ on unseen images", text)
    for name in ("predictions.jpg", "run/plots/curves.png", "run/model"):
        assert str(out / name) in text
        assert (out / name).exists()


def test_ctrl_c_saves_and_says_how_to_go_on(shapes_root, tmp_path):
    """The signal goes to the whole process group with the loading processes, as from a terminal."""
    arguments = [f"data.root={shapes_root}", f"train.output={tmp_path}", "train.name=run", "data.workers=2"]
    arguments += ["train.log_every=1", "train.epochs=100"]
    process = subprocess.Popen(
        [Path(sys.executable).parent / "cdetr", "train", "conditional-detr_tiny_shapes", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.read_text().count("\n") >= 2) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"cdetr train --resume {tmp_path / 'run'}" in out
    assert "Traceback" not in err
    assert "KeyboardInterrupt" not in err
    assert RunFolder(tmp_path / "run").newest_state() is not None


@needs_shared("data/coco_mini")
def test_published_recipe_takes_real_data(tmp_path):
    """The published preset trains one step on COCO images at a small size."""
    arguments = [f"data.root={SHARED / 'data' / 'coco_mini'}", f"train.output={tmp_path}", "train.max_steps=1"]
    arguments += ["data.short_sides=[64]", "data.crop=0", "data.eval_short_side=64", "data.eval_max_size=96"]
    result = cdetr("train", "conditional-detr_r50_8xb2-50e_coco", *arguments)
    assert result.returncode == 0, result.stderr
    assert "model.backbone_weights=imagenet" in result.stderr
    assert "train.scale_lr=true" in result.stderr
    assert (tmp_path / "conditional-detr_r50_8xb2-50e_coco" / "plots" / "predictions.jpg").exists()


def test_attention(run, shapes_root, tmp_path):
    image = next((shapes_root / "val2017").iterdir())
    result = cdetr("attention", run, image, "--out", tmp_path / "new" / "a.png", "--top", 2, "--layer", 1)
    assert result.returncode == 0, result.stderr
    assert len(re.findall(r"query \d+: (?:rectangle|ellipse|triangle) 0\.\d\d, box", result.stdout)) == 2
    names = {"a.png", "a-self-attention.png", "a-reference-points.png"}
    assert {file.name for file in (tmp_path / "new").iterdir()} == names
    for name in names:
        Image.open(tmp_path / "new" / name).load()
    told = json.loads(cdetr("attention", run, image, "--query", 4, "--out", tmp_path / "b.png", "--json").stdout)
    assert [row["query"] for row in told["detections"]] == [4]
    assert told["layer"] == 2
    refused(cdetr("attention", run, image, "--layer", 7), "layers 1 to 2")
    for name in ("maps", ".", ""):
        refused(cdetr("attention", run, image, "--out", name), "end the name in")
    refused(cdetr("attention", run, image, *["--query", "1"] * 21), "at most 20")
    mine = tmp_path / "mine-self-attention.png"
    mine.write_bytes(image.read_bytes())
    refused(cdetr("attention", run, mine, "--out", tmp_path / "mine.png"), "would be replaced")
    assert mine.read_bytes() == image.read_bytes()
    refused(cdetr("attention", run, tmp_path / "no.jpg"), r"no\.jpg")


def test_attention_of_plain_detr(shapes_root, tmp_path):
    save_checkpoint(randomized(small("detr")), tmp_path / "detr")
    image = next((shapes_root / "val2017").iterdir())
    result = cdetr("attention", tmp_path / "detr", image, "--out", tmp_path / "a.png")
    assert result.returncode == 0, result.stderr
    assert "plain DETR has no reference points" in result.stdout
    assert (tmp_path / "a-self-attention.png").exists()
    assert not (tmp_path / "a-reference-points.png").exists()


def test_compare(run, tmp_path):
    log = tmp_path / "published.log.json"
    log.write_text("\n".join(map(json.dumps, VERSION_3)))
    result = cdetr("compare", run, log, "--baseline", log, "--ap", 0.2, "--out", tmp_path / "c.png")
    assert result.returncode == 0, result.stderr
    assert re.search(r"epochs to AP +0\.2\n", result.stdout)
    assert re.search(r"\npublished +1\.7\n", result.stdout)
    assert re.search(r"\nrun +> 0\.6667\n", result.stdout)
    assert re.search(r"\nrun +< 2\.5\n", result.stdout)
    assert "divided by" in result.stdout
    Image.open(tmp_path / "c.png").load()
    told = json.loads(cdetr("compare", log, run, "--json", "--out", tmp_path / "c.png").stdout)
    assert told["baseline"] == "published"
    assert [each["run"] for each in told["runs"]] == ["published", "run"]
    refused(cdetr("compare", run, "--baseline", log), "not among the runs")
    refused(cdetr("compare", tmp_path), "not a run folder")
    refused(cdetr("compare", run, "--ap", 0), "above 0")
    refused(cdetr("compare", run, "--out", "picture.txt"), "end the name in")


def test_demo_refuses_a_folder_with_something_in_it(tmp_path):
    (tmp_path / "x").write_text("mine")
    refused(cdetr("demo", "--out", tmp_path), "not an empty folder")


def test_documented_commands_exist():
    """Every ``cdetr`` command, preset, setting, ``make`` target and file that the documents name exists."""
    presets = set(preset_names()) | {
        "PRESET",
        "PRESET|FILE",
        "--resume",
        "--presets",
        "--settings",
        "runs/<name>/config.yaml",
        "runs/mine/config.yaml",
    }
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    for document in documents():
        text = document.read_text()
        for command, first in re.findall(r"cdetr (\w+) ([^\s`]+)", text):
            assert command in COMMANDS, (document.name, command)
            if command == "train":
                assert first in presets, (document.name, first)
        assert set(re.findall(r"^make (\w+)|`make (\w+)", text, re.M)) <= {(t, "") for t in targets} | {
            ("", t) for t in targets
        }
        keys = re.findall(r"\b(?:model|data|train|loss|evaluation)\.[a-z_]+(?==)", text)
        mentioned = {"train.epoch", "model.key", "data.key"}  # the mistake that docs/faq.md shows, and placeholders
        assert set(keys) - mentioned <= set(setting_keys()), document.name
        for target in re.findall(r"\]\(((?!http)[^)#]+)", text):
            assert (document.parent / target).exists(), (document.name, target)


def test_benchmark(run, monkeypatch):
    """Predictions of a run are compared with transformers, which computes the same; training steps of a preset are measured."""
    monkeypatch.setattr("conditional_detr.benchmark.counting.COCO_SIZES", {(480, 640): 1})
    pytest.importorskip("transformers")
    arguments = ("--size", "64x96", "--repeats", 2, "--against", "transformers")
    record = json.loads(cdetr("benchmark", run, *arguments, "--json").stdout)
    (measured,) = record["measurements"]
    assert (measured["batch"], measured["size"]) == (1, [64, 96])
    plain, optimized, theirs = measured["rows"]
    assert [row["name"].split()[0] for row in measured["rows"]] == ["plain", "--optimize", "transformers"]
    assert plain["ratio"]["median"] > 0
    assert "ratio" not in theirs
    assert all(difference < 1e-4 for pair in measured["differences"].values() for difference in pair)
    assert set(measured["differences"]) == {"plain", "--optimize"}
    assert list(measured["parts"]) == ["preprocess", "backbone", "encoder", "decoder", "heads", "postprocess"]
    assert all(part["median"] > 0 for part in measured["parts"].values())
    assert optimized["images_per_second"] == pytest.approx(1 / optimized["seconds"]["median"])

    table = cdetr("benchmark", "conditional-detr_tiny_shapes", "--train", *arguments[:4]).stdout
    assert re.search(r"training step, 2 x 64x96\n", table)
    assert re.search(r"gradient checkpointing +[\d.]+ ", table)
    parts = [
        "data (one process)",
        "backbone",
        "encoder",
        "decoder",
        "heads",
        "matcher",
        "loss",
        "backward",
        "optimizer",
    ]
    assert [part for part in parts if not re.search(rf"^{re.escape(part)} +[\d.]+ ", table, re.M)] == []


def test_benchmark_refuses():
    refused(cdetr("benchmark", "nothing"), "nothing is no preset, file or folder; presets: conditional-detr_l")
    refused(cdetr("benchmark", "--size", "640"), "--size 640: give height and width in pixels")
    refused(
        cdetr("benchmark", "--size", "100000x100000"), "--size 100000x100000: give a size of at most 33554432 pixels"
    )
    refused(cdetr("benchmark", "conditional-detr_tiny_shapes", "train.epochs=1"), "only model.* settings")
    refused(cdetr("benchmark", "--train", "--compile"), "--compile is for predictions")
    refused(cdetr("benchmark", "detr_tiny_shapes", "--against", "transformers"), "leave out --against")
    refused(
        cdetr("benchmark", "conditional-detr_tiny_shapes", "--train", "--against", "transformers"),
        "trains its batch norm, which transformers can't; add model.batch_norm=frozen",
    )


def test_convert_and_use_a_run(run, shapes_root, tmp_path):
    """Conversion prints a table of all tensors, and the converted folder gives the same detections as the run."""
    result = cdetr("convert", run, tmp_path / "folder", "--to", "huggingface")
    assert result.returncode == 0, result.stderr
    assert re.search(r"2  model\.input_projection\.\* +model\.input_projection\.\* +same name", result.stdout)
    assert "nothing was left out" in result.stdout
    image = next((shapes_root / "val2017").iterdir())
    found = [
        json.loads(cdetr("predict", source, image, "--json", "--threshold", 0).stdout)
        for source in (run, tmp_path / "folder")
    ]
    assert found[0] == found[1]
    assert found[0]["annotations"]
    refused(cdetr("convert", run, tmp_path / "x.pth", "--to", "official"), "does not have a backbone of its own shape")


def test_files_that_do_not_say_enough(shapes_root, tmp_path):
    """For files with weights alone, as facebookresearch/detr publishes, the user has to say whether the model is DC5."""
    checkpoint = randomized(small("detr"))
    convert(checkpoint, tmp_path / "full.pth", "official")
    torch.save({"model": load_pth(tmp_path / "full.pth")["model"]}, tmp_path / "detr.pth")
    image = next((shapes_root / "val2017").iterdir())
    refused(cdetr("predict", tmp_path / "detr.pth", image), "--dc5 or --no-dc5")
    result = cdetr("predict", tmp_path / "detr.pth", image, "--no-dc5", "--json", "--threshold", 0)
    assert result.returncode == 0, result.stderr
    assert len(json.loads(result.stdout)["annotations"]) == 9
    result = cdetr("convert", tmp_path / "detr.pth", tmp_path / "mm.pth", "--to", "mmdetection", "--no-dc5", "--json")
    account = json.loads(result.stdout)
    assert (account["from"], account["to"]) == ("official", "mmdetection")
    assert all(row["what"] == "renamed" for row in account["rows"])


def test_a_file_without_category_names_gets_them(shapes_root, tmp_path):
    """As the official code leaves it after fine-tuning on ids 1, 2 and 3: the class head has a row for each id from 0 to 3."""
    convert(randomized(small()), tmp_path / "full.pth", "official")
    content = torch.load(tmp_path / "full.pth", weights_only=False)
    del content["conditional_detr"]
    source = tmp_path / "own.pth"
    torch.save(content, source)
    data = f"data.root={shapes_root}"
    coco = shapes_root / "annotations" / "instances_val2017.json"
    image = next((shapes_root / "val2017").iterdir())
    refused(cdetr("evaluate", source, data), r"which the model does not know .*give the names .*\(here: --names\)")
    refused(
        cdetr("evaluate", source, data, "--names", "a,b,c"), r"gives 3 category names, .* has 4 rows.*\(here: --names\)"
    )
    result = cdetr("evaluate", source, data, "--names", coco, "--json")
    assert [row["name"] for row in json.loads(result.stdout)["per_class"]] == ["rectangle", "ellipse", "triangle"]
    assert "categories are named 'N/A', 'rectangle', 'ellipse', 'triangle' (before: 'class 0'" in result.stderr
    result = cdetr("predict", source, image, "--names", "a,b,c,d", "--json", "--threshold", 0)
    found = json.loads(result.stdout)
    assert [category["name"] for category in found["categories"]] == ["a", "b", "c", "d"]
    result = cdetr("attention", source, image, "--names", "a,b,c,d", "--json", "--out", tmp_path / "x.png")
    assert {row["category_name"] for row in json.loads(result.stdout)["detections"]} <= {"a", "b", "c", "d"}
    assert cdetr("convert", source, tmp_path / "hf", "--to", "huggingface", "--names", "a,b,c,d").returncode == 0
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["id2label"]["3"] == "d"


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Calls:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'mark'}",)

    torch.save({"model": Calls()}, tmp_path / "bad.pth")
    refused(
        cdetr("convert", tmp_path / "bad.pth", tmp_path / "x", "--to", "huggingface"),
        r"bad\.pth wants to call (posix|nt)\.system",
    )
    assert not (tmp_path / "mark").exists()
