"""Rows equal what ``Detector.predict`` finds, wherever images and results are."""

from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest

from conditional_detr.batch.images import StoredImage
from conditional_detr.batch.listing import list_images
from conditional_detr.batch.local import run
from conditional_detr.batch.plan import make_plan
from conditional_detr.batch.shards import BatchFolder, Counts
from conditional_detr.errors import ImageError, RunError, SettingsError
from tests.batch.conftest import COUNT, files_in, rows, tar_of

THRESHOLD = 0.55


def computed(detector, inputs: list[str], out: str, **settings) -> BatchFolder:
    paths = list_images(inputs)
    plan = make_plan(detector, paths, THRESHOLD, **{"shard_size": 4, **settings})
    folder = BatchFolder(out, plan)
    folder.begin()
    run(detector, folder, paths, range(plan.shards), lambda count: None)
    return folder


def check(row: dict, found) -> None:
    """Check that a row holds the detections."""
    assert row["error"] is None
    assert row["boxes"] == found.boxes.tolist()
    assert row["labels"] == found.labels.tolist()
    assert row["names"] == found.names
    assert row["scores"] == found.scores.tolist()


def test_rows_equal_predictions(detector, photos, tmp_path):
    computed(detector, [str(photos)], str(tmp_path / "out"))
    found = rows(tmp_path / "out")
    files = files_in(photos)
    assert [row["path"] for row in found] == files
    for row, each in zip(found, detector.predict(files, THRESHOLD), strict=True):
        check(row, each)
    assert sum(len(row["labels"]) for row in found) > 0
    assert {(row["width"], row["height"]) for row in found} == {(60, 40 + 9 * i) for i in range(5)}


def test_batches_end_with_their_shard(detector, photos, tmp_path):
    computed(detector, [str(photos)], str(tmp_path / "out"), batch_size=3)
    files = files_in(photos)
    parts = [files[i : i + 4] for i in range(0, COUNT, 4)]
    expected = [each for part in parts for each in detector.predict(part, THRESHOLD, batch_size=3)]
    for row, each in zip(rows(tmp_path / "out"), expected, strict=True):
        check(row, each)


def test_broken_images_are_rows_with_an_error(detector, photos, tmp_path):
    (photos / "broken.jpg").write_bytes(b"no image")
    (photos / "list.txt").write_text("\n".join([*files_in(photos), str(photos / "gone.png"), str(photos / "more")]))
    folder = computed(detector, [str(photos / "list.txt")], str(tmp_path / "out"))
    bad = {row["path"]: row for row in rows(tmp_path / "out") if row["error"]}
    assert list(bad) == [str(photos / "broken.jpg"), str(photos / "gone.png"), str(photos / "more")]
    assert [row["width"] for row in bad.values()] == [None] * 3
    errors = [row["error"] for row in bad.values()]
    assert "not an image" in errors[0]
    assert "does not exist" in errors[1]
    assert "is a folder" in errors[2]
    assert all(path in row["error"] for path, row in bad.items())
    counts = sum(folder.done(range(3)).values(), start=Counts())
    assert counts[:2] == (COUNT + 3, 3)


def test_tars_and_stores(detector, photos, tmp_path):
    tar = tar_of(photos, tmp_path / "a.tar")
    system = fsspec.filesystem("memory")
    system.put_file(str(tar), "/images/b.tar")
    for file in files_in(photos):
        system.pipe_file(f"/images/{file.rpartition('/')[2]}", Path(file).read_bytes())
    system.pipe_file("/images/x.png", b"no image")
    (tmp_path / "list.txt").write_text(f"{tar}!gone.png\nmemory://images/gone.png\n")
    inputs = [str(tar), "memory://images/b.tar", "memory://images", str(tmp_path / "list.txt")]
    computed(detector, inputs, "memory://found")
    files = system.glob("/found/shards/*.parquet")
    found = {row["path"]: row for file in files for row in pq.read_table(system.open(file)).to_pylist()}
    assert len(found) == 3 * COUNT + 3
    for file in files_in(photos):
        name = file.rpartition("/")[2]
        for address in (f"{tar}!{name}", f"memory://images/b.tar!{name}", f"memory://images/{name}"):
            check(found[address], detector.predict(file, THRESHOLD))
    errors = {path: row["error"] for path, row in found.items() if row["error"]}
    assert errors == {
        "memory://images/x.png": "memory://images/x.png is not an image of a known format; replace or remove the file",
        "memory://images/gone.png": "image memory://images/gone.png does not exist; check the address and its permissions",
        f"{tar}!gone.png": f"image {tar}!gone.png is not in the tar; check the list",
    }


def test_a_store_that_does_not_answer_ends_the_command(detector, photos, tmp_path, monkeypatch):
    system = fsspec.filesystem("memory")
    for i in range(6):
        system.pipe_file(f"/lost/{i}.png", Path(files_in(photos)[i]).read_bytes())
    plain, asked = type(system).cat_file, []

    def cat_file(self, path, *arguments, **options):
        asked.append(path)
        if path.endswith("5.png") or asked.count(path) == 1:
            raise TimeoutError("no answer")
        return plain(self, path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(system), "cat_file", cat_file)
        with pytest.raises(RunError, match=r"memory://lost/5\.png can't be read \(no answer\); check the network"):
            computed(detector, ["memory://lost"], str(tmp_path / "out"))
    assert len(rows(tmp_path / "out")) == 4  # the first shard, whose images were tried twice
    assert not any(row["error"] for row in rows(tmp_path / "out"))
    computed(detector, ["memory://lost"], str(tmp_path / "out"))
    assert len(rows(tmp_path / "out")) == 6


@pytest.fixture
def bucket(monkeypatch):
    """An empty bucket of a local server that speaks S3."""
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    server = pytest.importorskip("moto.server", reason="moto[server] is not installed").ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{port}"  # servers of one process share their buckets
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}"
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


def test_images_and_results_in_s3(detector, photos, tmp_path, bucket):
    system = fsspec.filesystem("s3")
    for file in files_in(photos):
        system.put_file(file, f"{bucket}/photos{file.removeprefix(str(photos))}")
    system.put_file(str(tar_of(photos, tmp_path / "a.tar")), f"{bucket}/a.tar")
    computed(detector, [f"{bucket}/photos", f"{bucket}/*.tar"], f"{bucket}/found")
    assert sorted(system.find(f"{bucket}/found"))[0].endswith("/found/plan.json")
    found = [
        row
        for file in system.glob(f"{bucket}/found/shards/*.parquet")
        for row in pq.read_table(system.open(file)).to_pylist()
    ]
    assert len(found) == 2 * COUNT
    by_path = {row["path"]: row for row in found}
    for file in files_in(photos):
        check(by_path[f"{bucket}/photos{file.removeprefix(str(photos))}"], detector.predict(file, THRESHOLD))
        check(by_path[f"{bucket}/a.tar!{file.rpartition('/')[2]}"], detector.predict(file, THRESHOLD))
    with pytest.raises(SettingsError, match="does not exist"):
        list_images(["s3://nowhere/photos"])


def test_a_bucket_that_can_not_be_reached(bucket, monkeypatch):
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(SettingsError, match=r"s3://bucket-\d+ can't be reached \(.*127\.0\.0\.1:9.*check the address"):
        list_images([bucket])


@pytest.mark.parametrize(("code", "kind"), [("AccessDenied", ImageError), ("ExpiredToken", RunError)])
def test_credentials_that_expire_are_no_errors_of_images(code, kind, monkeypatch):
    class ClientError(Exception):  # as botocore raises it, with the answer of the server
        response = {"Error": {"Code": code}}  # noqa: RUF012

    def cat_file(*_: object, **__: object) -> bytes:
        raise PermissionError(code) from ClientError()

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_file", cat_file)
    with pytest.raises(kind, match=rf"memory://images/a\.png can't be read \({code}\)"):
        StoredImage("memory://images/a.png").read()
