"""What every request passes: ids, keys, the full queue, time, the stop, faults of ours, reloads, metrics."""

import logging
import threading
import time

import pytest

from conditional_detr.errors import CheckpointError, SettingsError
from conditional_detr.inference.detector import Detector
from conditional_detr.serve.settings import read_keys
from tests.serve.test_detection import refusal


def test_request_ids_are_kept_or_made(client):
    assert client.get("/livez", headers={"X-Request-ID": "abc-1"}).headers["X-Request-ID"] == "abc-1"
    made = client.get("/livez", headers={"X-Request-ID": "a b\x7f" * 99}).headers["X-Request-ID"]
    assert len(made) == 32


def test_a_key_is_needed_where_keys_are_set(serving, png):
    client = serving(keys=("0123456789abcdef", "fedcba9876543210"))
    for address in ("/v1/model", "/metrics", "/v1/sample"):
        assert "give an API key" in refusal(client.get(address), 401)
    answer = client.post("/v1/detect", files={"image": png}, headers={"Authorization": "Bearer 0123456789abcdee"})
    assert answer.status_code == 401
    assert client.get("/v2/health/ready").status_code == client.get("/livez").status_code == 200
    assert client.get("/").status_code == client.get("/page/page.js").status_code == 200
    for headers in ({"Authorization": "Bearer 0123456789abcdef"}, {"X-API-Key": "fedcba9876543210"}):
        assert client.post("/v1/detect", files={"image": png}, headers=headers).status_code == 200


def test_key_files(tmp_path):
    file = tmp_path / "keys"
    file.write_text("# ours\n0123456789abcdef\n\nfedcba9876543210\n")
    assert read_keys(file) == ("0123456789abcdef", "fedcba9876543210")
    for content, words in ((b"short\n", "line 1 of"), (b"#\n", "holds no key"), (b"\xff" * 20, "not ASCII")):
        file.write_bytes(content)
        with pytest.raises(SettingsError, match=words):
            read_keys(file)
    with pytest.raises(SettingsError, match="can't be read"):
        read_keys(tmp_path / "none")


def held(service):
    """Occupy the threads of the model until the returned event is set."""
    streams = service._batcher.streams
    go, begun = threading.Event(), threading.Barrier(streams + 1)

    def wait():
        begun.wait(10)
        go.wait(20)

    for _ in range(streams):
        service._batcher.call(wait, time.monotonic() + 60)
    begun.wait(10)
    return go


def test_a_full_queue_is_answered_429_and_the_accepted_are_answered(serving, png):
    client = serving(queue=2)
    go = held(client.service)
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(client.post("/v1/detect", files={"image": png})))
        for _ in range(2)
    ]
    for each in threads:
        each.start()
    until = time.monotonic() + 10
    while not client.service.full and time.monotonic() < until:
        time.sleep(0.005)
    refused = client.post("/v1/detect", files={"image": png})
    assert "the queue is full; try again in" in refusal(refused, 429)
    assert int(refused.headers["Retry-After"]) >= 1
    assert client.get("/readyz").status_code == 503
    assert client.get("/livez").status_code == 200
    go.set()
    for each in threads:
        each.join(20)
    assert [each.status_code for each in answers] == [200, 200]
    assert client.get("/readyz").status_code == 200


def test_a_request_that_takes_too_long_is_answered_503(serving, png):
    client = serving(seconds=0.3)
    go = held(client.service)
    answer = client.post("/v1/detect", files={"image": png})
    assert "took more than 0.3 s" in refusal(answer, 503)
    assert answer.headers["Retry-After"]
    assert client.service._batcher.reserved == 0
    go.set()


def test_a_stopping_server_refuses_new_requests(client, png):
    client.service.stopping = True
    assert "shutting down" in refusal(client.post("/v1/detect", files={"image": png}), 503)
    assert client.get("/readyz").status_code == client.get("/v2/health/ready").status_code == 503
    assert client.get("/livez").status_code == 200


def test_a_fault_of_ours_is_logged_under_its_id_and_not_shown(client, png, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("secret detail")

    monkeypatch.setattr("conditional_detr.inference.pipeline.Pipeline.detect", broken)
    answer = client.post("/v1/detect", files={"image": png}, headers={"X-Request-ID": "fault-7"})
    message = refusal(answer, 500)
    assert "fault-7" in message
    assert "secret" not in answer.text
    logged = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert any("secret detail" in str(each.exc_info[1]) for each in logged if each.exc_info)


def test_a_reload_replaces_the_model_and_a_failed_one_keeps_it(serving, starter, png, tmp_path):
    opened = [starter]
    client = serving(open_detector=lambda: opened[-1])
    before = client.get("/v1/model").json()["version"]

    def fail():
        raise CheckpointError("model is cut short")

    client.service._open_detector = fail
    client.service.reload()
    assert client.get("/v1/model").json()["version"] == before

    client.service._open_detector = lambda: Detector.from_pretrained("starter:lite0", "cpu")
    client.service.reload()
    answer = client.post("/v1/detect", files={"image": png}).json()
    assert answer["model"]["version"] == client.get("/v1/model").json()["version"] != before
    metrics = client.get("/metrics").text
    assert 'cdetr_reloads_total{result="failed"} 1.0' in metrics
    assert 'cdetr_reloads_total{result="done"} 1.0' in metrics


def test_metrics_count_requests_batches_and_parts(client, png):
    client.post("/v1/detect", files={"image": png})
    client.post("/v1/detect", files={"image": b"x"})
    for i in range(20):
        client.get(f"/invented/{i}")
    text = client.get("/metrics").text
    assert 'cdetr_requests_total{route="/v1/detect",status="200"} 1.0' in text
    assert 'cdetr_requests_total{route="/v1/detect",status="422"} 1.0' in text
    assert "invented" not in text  # clients can't make series without end
    assert "cdetr_batch_images_sum 1.0" in text
    for part in ("decode", "queue", "model"):
        assert f'cdetr_part_seconds_count{{part="{part}"}} 1.0' in text
    assert "cdetr_queue_images 0.0" in text


def test_the_model_is_described(client, starter):
    described = client.get("/v1/model").json()
    assert described["categories"] == [{"id": 1, "name": "object"}]
    assert described["runtime"] == starter.runtime
    assert described["attention"] is True
    assert described["layers"] == 2
