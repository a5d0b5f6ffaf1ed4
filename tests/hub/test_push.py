"""Uploads to a stand-in of the hub: what is in the repository, what the card says, and what goes wrong."""

import getpass
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard, constants
from PIL import Image

from conditional_detr import Detector
from conditional_detr.checkpoints.opening import open_checkpoint
from conditional_detr.config import load_settings
from conditional_detr.hub.card import card, is_ours
from conditional_detr.hub.facts import facts_of
from conditional_detr.record import Categories
from conditional_detr.runs import RunFolder
from tests.checkpoints.models import randomized, save_checkpoint
from tests.cli.test_commands import cdetr, refused

ID = "org/shapes-detector"
# huggingface_hub uploads large files in a way that newer versions of its HTTP library deprecate.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
CHECKPOINT = {"config.json", "model.safetensors", "preprocessor_config.json"}


@pytest.fixture
def image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8))


def readme(hub) -> str:
    return hub.files(ID)["README.md"].decode()


def metadata(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_push_a_run_and_use_it(hub, trained, image):
    result = cdetr("push", trained, ID, "--license", "apache-2.0", "--message", "First")
    assert result.returncode == 0, result.stderr
    assert f"model card   {hub.address}/{ID}" in result.stdout
    assert f"cdetr predict {ID}" in result.stdout
    assert hub.private == {ID: False}
    assert hub.messages == ["First"]
    assert set(hub.files(ID)) >= CHECKPOINT | {
        "README.md",
        "pictures/plots-curves.png",
        "pictures/plots-predictions.jpg",
    }
    ours = Detector.from_pretrained(trained).predict(image, 0.0)
    theirs = Detector.from_pretrained(ID).predict(image, 0.0)
    assert torch.equal(ours.scores, theirs.scores)
    assert torch.equal(ours.boxes, theirs.boxes)


def test_the_card_of_a_run(hub, trained):
    assert cdetr("push", trained, ID, "--license", "apache-2.0").returncode == 0
    text = readme(hub)
    values = metadata(text)
    assert values["library_name"] == "conditional-detr"
    assert values["pipeline_tag"] == "object-detection"
    assert values["license"] == "apache-2.0"
    assert {"object-detection", "conditional-detr"} <= set(values["tags"])
    (model,) = values["model-index"]
    assert model["name"] == "shapes-detector"
    metrics = {each["name"]: each["value"] for result in model["results"] for each in result["metrics"]}
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    best = next(line for line in lines if line["kind"] == "evaluation")
    assert metrics["AP50"] == pytest.approx(best["AP50"], abs=1e-4)
    assert model["results"][0]["dataset"]["name"] == "my-shapes"
    assert ModelCard(text).data.eval_results[0].task_type == "object-detection"
    root = load_settings(trained / "config.yaml").data.root
    for split, images in (("train", 48), ("val", 11)):
        data = json.loads((root / "annotations" / f"instances_{split}2017.json").read_text())
        assert f"| {split} | {images} | {len(data['annotations'])} |" in text
    assert "| `train.lr` | 0.0002 |" in text
    assert "`conditional-detr_tiny_shapes`" in text
    for name in ("rectangle", "ellipse", "triangle"):
        assert f"| {name} |" in text
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert picture in hub.files(ID)
    assert "pictures/report-confusion.png" in text


def test_no_path_of_this_machine_is_uploaded(hub, trained):
    config = load_settings(trained / "config.yaml")
    assert cdetr("push", trained, ID).returncode == 0
    secrets = [str(config.data.root.parent), config.data.root.parent.name, str(trained), config.train.output.name]
    secrets += [str(Path.home()), "/tmp", str(Path(__file__).parents[2])]
    secrets += [getpass.getuser()] if len(getpass.getuser()) > 4 else []
    for name, content in hub.files(ID).items():
        for secret in secrets:
            assert secret.encode() not in content, (name, secret)


@pytest.mark.parametrize("key", ["data.train_annotations", "data.val_images", "model.backbone_weights"])
def test_settings_that_are_paths_are_left_out(key, trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    text = load_settings(run / "config.yaml", [f"{key}=/home/someone/file"]).to_yaml()
    (run / "config.yaml").write_text(text)
    facts = facts_of(RunFolder(run), with_images=True)
    made = card(open_checkpoint(run), ID, facts, None)
    assert "/home" not in made
    assert "someone" not in made


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("/home/someone/model.pth", None),
        ("runs/earlier", None),
        ("checkpoints/secret", None),  # looks like a hub id
        ("model.pth", None),
        ("../weights/model.pth", None),
        ("starter:tiny", "starter:tiny"),
        ("microsoft/conditional-detr-resnet-50", "microsoft/conditional-detr-resnet-50"),
    ],
)
def test_initial_weights_are_named_only_when_they_are_public(source, shown, trained, tmp_path, monkeypatch):
    monkeypatch.setattr("conditional_detr.hub.facts._was_downloaded", lambda hub_id: hub_id.startswith("microsoft/"))
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    settings = load_settings(run / "config.yaml", [f"model.init_from={source}"])
    settings = settings.model_copy(update={"train": settings.train.model_copy(update={"output": Path("/x/runs")})})
    (run / "config.yaml").write_text(settings.to_yaml())
    facts = facts_of(RunFolder(run), with_images=True)
    assert facts.init_from == shown
    text = card(open_checkpoint(run), ID, facts, None)
    assert (source in text) == (shown is not None)
    assert metadata(text).get("base_model") == (source if source.startswith("microsoft/") else None)


def test_links_are_not_followed(hub, trained, tmp_path):
    """A run that somebody sent could otherwise publish any file."""
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (tmp_path / "secret").write_text("SECRET")
    (run / "plots" / "curves.png").unlink(missing_ok=True)
    (run / "plots" / "curves.png").symlink_to(tmp_path / "secret")
    (run / "plots" / "predictions.jpg").write_text("SECRET")
    result = cdetr("push", run, ID)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("is a link or no picture") == 2
    assert not any(b"SECRET" in content for content in hub.files(ID).values())


@pytest.mark.parametrize("name", ["me/model.git", "me/mod-", "me/" + "a" * 100, "ünï/möd"])
def test_names_that_the_hub_refuses(name, hub, trained):
    refused(cdetr("push", trained, name), "is no name of a repository")


def test_pictures_of_the_data_can_be_left_out(hub, trained):
    assert cdetr("push", trained, ID, "--no-pictures", "--private").returncode == 0
    pictures = {name for name in hub.files(ID) if name.startswith("pictures/")}
    assert "pictures/plots-curves.png" in pictures
    assert "pictures/plots-predictions.jpg" not in pictures
    assert not any("worst" in name or "augmented" in name for name in pictures)
    assert hub.private == {ID: True}


def test_names_of_categories_can_not_break_the_card(trained):
    settings = load_settings("conditional-detr_tiny_shapes").model.resolved()
    names = ("a | b", "<script>x</script>", "line\nbreak", "---")
    text = card(randomized(settings, Categories((1, 2, 3, 4), names)), ID, None, None)
    assert r"| 1 | a \| b |" in text
    assert "<script>" not in text
    assert r"line\\nbreak" in text
    assert metadata(text)["library_name"] == "conditional-detr"
    assert "model-index" not in metadata(text)


def test_data_that_is_gone_is_not_counted(trained, tmp_path, caplog):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    gone = load_settings(run / "config.yaml", ["data.root=/gone/my-data"])
    (run / "config.yaml").write_text(gone.to_yaml())
    facts = facts_of(RunFolder(run), with_images=True)
    assert facts.splits == []
    assert facts.data == "my-data"
    assert "does not count the images" in caplog.text


# --- Python ---


def test_push_a_detector_and_open_revisions(hub, trained, tmp_path, image):
    settings = load_settings("conditional-detr_tiny_shapes").model.resolved()
    save_checkpoint(randomized(settings), tmp_path / "model")
    first = Detector.from_pretrained(tmp_path / "model")
    assert first.push_to_hub(ID, license="mit") == f"{hub.address}/{ID}"
    assert metadata(readme(hub))["license"] == "mit"
    second = Detector.from_pretrained(trained)
    second.push_to_hub(ID, run=trained)
    old = hub.commit_id(ID, 1)
    for source, options in ((ID, {"revision": old}), (f"{ID}@{old}", {})):
        found = Detector.from_pretrained(source, **options).predict(image, 0.0)
        assert torch.equal(found.scores, first.predict(image, 0.0).scores)
    newest = Detector.from_pretrained(ID, revision="main").predict(image, 0.0)
    assert torch.equal(newest.scores, second.predict(image, 0.0).scores)


def test_revisions_that_can_not_be(hub, trained):
    Detector.from_pretrained(trained).push_to_hub(ID)
    with pytest.raises(ValueError, match="can't be downloaded from the Hugging Face hub"):
        Detector.from_pretrained(ID, revision="no-such-branch")
    with pytest.raises(ValueError, match="which has no revisions"):
        Detector.from_pretrained(trained, revision="main")
    with pytest.raises(ValueError, match="differ; leave one of them out"):
        Detector.from_pretrained(f"{ID}@main", revision="other")


def test_an_edited_card_is_kept(hub, trained):
    detector = Detector.from_pretrained(trained)
    detector.push_to_hub(ID)
    assert is_ours(readme(hub))
    assert cdetr("push", trained, ID, "--license", "mit").returncode == 0
    assert metadata(readme(hub))["license"] == "mit"
    hub.commits[ID].append({**hub.files(ID), "README.md": readme(hub).replace("Categories", "My classes").encode()})
    result = cdetr("push", trained, ID)
    assert result.returncode == 0, result.stderr
    assert "was edited on the hub and is kept" in " ".join(result.stderr.split())
    assert "My classes" in readme(hub)


def test_transformers_opens_what_was_pushed(hub, trained, image, tmp_path):
    transformers = pytest.importorskip("transformers")
    assert cdetr("push", trained, ID).returncode == 0
    folder = tmp_path / "clone"
    for name, content in hub.files(ID).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    detector = Detector.from_pretrained(folder)
    model = transformers.AutoModelForObjectDetection.from_pretrained(folder)
    pixels = detector.pipeline.prepare(image, "image")[None]
    with torch.no_grad():
        found = model(pixels, torch.ones_like(pixels[:, 0], dtype=torch.int64))
        ours = detector.model(pixels)
    torch.testing.assert_close(found.logits, ours.logits[-1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.pred_boxes, ours.boxes[-1], atol=1e-4, rtol=1e-4)
    detect = transformers.pipeline("object-detection", model=str(folder))
    boxes = [list(each["box"].values()) for each in detect(image, threshold=0.01)[:5]]
    assert boxes
    expected = detector.predict(image, 0.01).boxes[: len(boxes)]
    # transformers cuts decimals off; scores that are nearly equal may be in another order.
    for box in boxes:
        assert min((expected - torch.tensor(box)).abs().max(dim=1).values) < 1.5


# --- what goes wrong ---


@pytest.mark.parametrize(
    "name", ["shapes-detector", "org/", "org/a/b", "org/a b", "/org/a", "org/a--b", "https://x.org/a"]
)
def test_names_that_are_no_repository(name, hub, trained):
    refused(cdetr("push", trained, name), "is no name of a repository; give owner/name")
    assert not hub.commits


def test_without_a_token(hub, trained, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    refused(cdetr("push", trained, ID), "there is no token .*hf auth login")
    assert not hub.commits


def test_a_wrong_token(hub, trained, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused(cdetr("push", trained, ID), "does not accept the token")


def test_a_token_that_may_not_write(hub, trained):
    hub.refused = 403
    refused(cdetr("push", trained, ID), f"may not write to {ID}")


@pytest.mark.parametrize("status", [400, 500])
def test_a_hub_that_refuses(status, hub, trained):
    hub.refused = status
    result = cdetr("push", trained, ID)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {ID} can't be uploaded to the Hugging Face hub (")
    assert len(result.stderr.strip().splitlines()) == 1


def test_without_network(hub, trained, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nothing listens
    result = cdetr("push", trained, ID)
    assert result.returncode == 1
    assert "can't be uploaded to the Hugging Face hub" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_runs_without_a_checkpoint(hub, trained, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(trained / "config.yaml", run)
    refused(cdetr("push", run, ID), "has no checkpoint yet")
    with pytest.raises(ValueError, match="is not a run folder"):
        Detector.from_pretrained(trained).push_to_hub(ID, run=tmp_path)
    assert not hub.commits
