# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""python -m paligemma.demo: the API over real connections, its limits, and what it refuses. tests/demo/look.py has the page."""
import base64
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import paligemma

pytest.importorskip("starlette", reason="the extra demo is not installed (starlette)")
uvicorn = pytest.importorskip("uvicorn", reason="the extra demo is not installed (uvicorn)")

from paligemma.demo.app import build, until_stop  # noqa: E402
from paligemma.demo.question import Limits, Refused, read  # noqa: E402

CAPTION = "a red circle, a purple star and a yellow triangle"
CHAT = "/v1/chat/completions"


class Slow:
    """The demo model, whose tokens wait for a gate."""

    def __init__(self, model):
        self.model, self.gate, self.n_tokens, self.began = model, threading.Event(), 0, threading.Event()

    def __getattr__(self, name):
        return getattr(self.model, name)

    def stream(self, *arguments, on_token, **settings):
        def gated(token):
            self.n_tokens += 1
            self.began.set()
            assert self.gate.wait(30)
            on_token(token)

        return self.model.stream(*arguments, on_token=gated, **settings)


class Server:
    def __init__(self, app, **settings):
        self.app = app
        self.server = uvicorn.Server(uvicorn.Config(app, http="h11", ws="none", log_level="critical", **settings))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})

    def __enter__(self):
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
            time.sleep(0.005)
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def send(self, method, path, body=None, **headers):
        connection = self.connect()
        if isinstance(body, dict):
            body, headers = json.dumps(body), {"Content-Type": "application/json", **headers}
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        return connection, connection.getresponse()

    def ask(self, body, **headers):
        """-> status, headers and JSON of POST /v1/chat/completions."""
        connection, response = self.send("POST", CHAT, body, **headers)
        answer = response.status, response.headers, json.loads(response.read())
        connection.close()
        return answer

    def refused(self, body, status, words, **headers):
        """The error of a request, in OpenAI's shape."""
        found, sent, content = self.ask(body, **headers)
        assert found == status and set(content) == {"error"}, content
        assert set(content["error"]) == {"message", "type", "param", "code"}
        assert words in content["error"]["message"], content
        assert content["error"]["type"] == ("server_error" if status >= 500 else "invalid_request_error")
        return sent, content["error"]

    def events(self, body):
        """The data of a stream; [DONE] ends it."""
        _, response = self.send("POST", CHAT, {**body, "stream": True})
        assert response.status == 200 and response.headers["Content-Type"].startswith("text/event-stream")
        lines = response.read().decode().split("\n\n")
        assert lines[-1] == "" and all(line.startswith("data: ") for line in lines[:-1])
        assert lines[-2] == "data: [DONE]"
        return [json.loads(line[len("data: "):]) for line in lines[:-2]]


@pytest.fixture(scope="module")
def server(model, processor):
    with Server(build(model, processor, "shapes", Limits(body=300_000, pixels=200_000, new_tokens=100, seconds=1.0))) as server:
        yield server


@pytest.fixture(scope="module")
def url():
    image = pathlib.Path(__file__).resolve().parents[2] / "examples" / "demo" / "images" / "shapes.png"
    return "data:image/png;base64," + base64.b64encode(image.read_bytes()).decode()


def question(url, prompt="caption en", **fields):
    content = [{"type": "text", "text": prompt}, {"type": "image_url", "image_url": {"url": url, "detail": "auto"}}]
    return {"model": "shapes", "messages": [{"role": "user", "content": content}], **fields}


def test_an_answer(server, url, model, processor, image_path):
    status, _, answer = server.ask(question(url, user="me", n=1, temperature=None))
    assert status == 200 and answer["object"] == "chat.completion" and answer["model"] == "shapes"
    assert answer["id"].startswith("chatcmpl-") and abs(answer["created"] - time.time()) < 60
    assert answer["choices"] == [{"index": 0, "message": {"role": "assistant", "content": CAPTION, "refusal": None},
                                  "logprobs": None, "finish_reason": "stop"}]
    inputs = processor(str(image_path), "caption en", return_tensors="np")
    n_prompt, n_new = inputs["input_ids"].shape[1], model.generate(**inputs, max_new_tokens=50).shape[1]
    assert answer["usage"] == {"prompt_tokens": n_prompt, "completion_tokens": n_new - n_prompt, "total_tokens": n_new}
    assert "objects" not in answer
    _, response = server.send("GET", "/v1/models")
    assert [entry["id"] for entry in json.loads(response.read())["data"]] == ["shapes"]


def test_a_stream(server, url):
    chunks = server.events(question(url, stream_options={"include_usage": True}))
    assert len({chunk["id"] for chunk in chunks}) == 1 and {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    assert deltas[0] == {"role": "assistant", "content": ""} and deltas[-1] == {}
    assert len(deltas) > 8 and "".join(delta.get("content", "") for delta in deltas) == CAPTION
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]]
    assert reasons == [None] * (len(reasons) - 1) + ["stop"]
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] == 12
    assert all("usage" not in chunk for chunk in server.events(question(url)))


def test_lengths_and_stop_strings(server, url):
    def answer(**fields):
        _, _, found = server.ask(question(url, **fields))
        choice = found["choices"][0]
        text = "".join(c["choices"][0]["delta"].get("content", "") for c in server.events(question(url, **fields)))
        assert text == choice["message"]["content"]
        return text, choice["finish_reason"], found["usage"]["completion_tokens"]

    assert answer(max_tokens=3) == ("a red circle", "length", 3)
    assert answer(max_completion_tokens=1, max_tokens=50) == ("a", "length", 1)
    assert answer(max_tokens=11) == (CAPTION, "length", 11) and answer(max_tokens=12) == (CAPTION, "stop", 12)
    assert answer(stop="circle") == ("a red ", "stop", 3)
    assert answer(stop=["triangle!", "star and"])[:2] == ("a red circle, a purple ", "stop")
    assert answer(stop=["triangles", "no"])[:2] == (CAPTION, "stop")  # held back, and sent at the end
    assert answer(stop=["a"])[:2] == ("", "stop")


def test_stop_strings_across_pieces():
    text, held, sent = "the cat; the end", "", []
    for letter in text:
        new, held, stopped = until_stop(held + letter, ["; the", "cats"])
        sent.append(new)
        if stopped:
            break
    assert "".join(sent) == "the cat" and held == "" and stopped
    assert until_stop("aab", ["ab"]) == ("a", "", True) and until_stop("aaa", ["ab"]) == ("aa", "a", False)
    assert until_stop("xyz", ["z", "yz"]) == ("x", "", True) and until_stop("x", []) == ("x", "", False)


def test_sampling(server, url):
    def answer(**fields):
        return server.ask(question(url, max_tokens=40, **fields))[2]["choices"][0]["message"]["content"]

    assert answer(temperature=0, seed=1) == CAPTION and answer(seed=1) == CAPTION
    hot = [answer(temperature=2, seed=seed) for seed in range(12)]
    assert len(set(hot)) > 1 and hot == [answer(temperature=2.0, seed=seed) for seed in range(12)]
    assert answer(temperature=2, seed=-(2**63)) and answer(top_p=1, seed=3)
    assert {answer(temperature=2, top_p=0.001, seed=seed) for seed in range(5)} == {CAPTION}


def test_boxes_and_masks(server, url, model, processor, image_path):
    prompt = "segment red circle ; purple star"
    found = server.ask(question(url, prompt, objects=True))[2]
    width = height = 336
    expected = model.segment(str(image_path), "red circle ; purple star")
    assert [thing["label"] for thing in found["objects"]] == ["red circle", "purple star"]
    decoder = paligemma.MaskDecoder.from_pretrained(model.name_or_path)
    for thing, box, parsed in zip(found["objects"], expected["xyxy"], expected.answer):
        assert [part * size for part, size in zip(thing["box"], (width, height) * 2)] == pytest.approx(box.tolist(), abs=0.01)
        mask = [value >= 128 for value in base64.b64decode(thing["mask"])]
        assert mask == (decoder.decode(parsed.segs) >= 0).ravel().tolist() and 0 < sum(mask) < 4096
    states = [chunk["objects"] for chunk in server.events(question(url, prompt, objects=True)) if "objects" in chunk]
    assert [len(state) for state in states] == [1, 2] and states[-1] == found["objects"]


def test_one_look_at_an_image(server, url, model, monkeypatch):
    calls, encode = [], type(model).encode_image
    monkeypatch.setattr(type(model), "encode_image", lambda self, *a, **k: calls.append(1) or encode(self, *a, **k))
    other = "data:image/jpeg;base64," + base64.b64encode(
        (pathlib.Path(__file__).parents[2] / "examples" / "demo" / "images" / "stripes.jpg").read_bytes()).decode()
    texts = [server.ask(question(address))[2]["choices"][0]["message"]["content"] for address in (other, url, url, other)]
    assert texts[0] == texts[3] != CAPTION and texts[1] == texts[2] == CAPTION
    assert len(calls) == 3


@pytest.mark.parametrize("fields, words", [
    ({"model": 3}, "model is 3"), ({"n": 2}, "n: this server cannot"), ({"logprobs": True}, "logprobs: this"),
    ({"tools": [{}]}, "tools: this"), ({"response_format": {"type": "json_object"}}, "response_format: this"),
    ({"frequency_penalty": 0.5}, "frequency_penalty: this"), ({"top_k": 5}, "top_k: this"),
    ({"max_tokens": 0}, "expected an integer from 1 to 100"), ({"max_tokens": 101}, "max_tokens is 101"),
    ({"max_tokens": 1.5}, "max_tokens is 1.5"), ({"max_completion_tokens": True}, "max_completion_tokens is True"),
    ({"temperature": -0.1}, "temperature is -0.1, expected a number from 0 to 2"), ({"temperature": "hot"}, "'hot'"),
    ({"temperature": float("nan")}, "temperature is nan"), ({"top_p": 1.1}, "top_p is 1.1"), ({"seed": 2**63}, "seed is"),
    ({"temperature": 1, "seed": 0.5}, "seed is 0.5"), ({"stop": [""]}, "stop is ['']"), ({"stop": ["a"] * 5}, "up to 4"),
    ({"stop": 3}, "stop is 3"), ({"stream": "yes"}, "stream is 'yes'"), ({"objects": 1}, "objects is 1"),
    ({"stream_options": {"x": 1}}, "stream_options is"), ({"stream_options": {"include_usage": 1}}, "include_usage is 1"),
    ({"messages": []}, "messages has []"), ({"messages": "hi"}, "messages has 'hi'"), ({"messages": None}, "messages has None"),
    ({"messages": [{"role": "system", "content": "x"}]}, "no system prompt"), ({"messages": [7]}, "messages has [7]"),
    ({"messages": [{"role": "user", "content": "caption en"}]}, "answers about images"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "caption en"}]}]}, "1 text parts and 0 images"),
    ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "content[0] is {'type': 'input_audio'}"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}, "content[0] is"),
])
def test_what_cannot_be_followed_is_refused(server, url, fields, words):
    error = server.refused({**question(url), **fields}, 404 if "model" in fields else 400, words)[1]
    assert error["param"] in (*fields, "include_usage")


@pytest.mark.parametrize("address, words", [
    ("https://example.com/cat.jpg", "never fetches anything"), ("HTTP://example.com/cat.jpg", "never fetches anything"),
    ("file:///etc/passwd", "expected \"data:image/png;base64"), ("/etc/passwd", "expected \"data:image/png;base64"),
    ("data:image/png;base64,@@@@", "is no base64"), ("data:image/png,abc", "expected \"data:image"),
    ("data:image/png;base64,", "begins with the bytes (none)"), ("data:image/webp;base64,UklGRg==", "52 49 46 46, expected a PNG"),
    ("data:image/png;base64,iVBORw0KGgoAAA==", "found a PNG of 10 bytes"), (None, "is None, expected a data: URL")])
def test_wrong_images(server, address, words):
    server.refused(question(address), 400, words)


def test_wrong_bodies(server, url):
    json_type = {"Content_Type": "application/json"}
    for body, words in [(b"", "no JSON"), (b"{", "no JSON"), (b"\xff", "no JSON"), (b"[]", "a JSON list"),
                        (b"[" * 100_000, "no JSON"), (b'{"seed": ' + b"1" * 5000 + b"}", "no JSON")]:
        server.refused(body, 400, words, **json_type)
    server.refused(b"{}", 415, "Content-Type is 'text/plain'", Content_Type="text/plain")
    server.refused(question(url, "x" * 8193), 400, "max_text_bytes")
    server.refused(question(url, "\ud800"), 400, "surrogate")
    server.refused(question(url, "<image><image>caption en"), 400, "2 `<image>`")
    assert server.ask(question(url, "détecte ☃ 😀"))[0] == 200
    for method, path, status in [("GET", "/x", 404), ("GET", CHAT, 405), ("POST", "/", 405)]:
        _, response = server.send(method, path)
        assert response.status == status and "there are GET /" in json.loads(response.read())["error"]["message"]


def test_several_images(server, url):
    body = question(url)
    image = body["messages"][0]["content"][1]
    body["messages"][0]["content"] += [image, image]
    assert server.ask(body)[2]["usage"]["prompt_tokens"] > 3 * 49
    body["messages"][0]["content"] += [image, image]
    server.refused(body, 400, "1 to 4 images")


def test_sizes(server, url):
    server.refused(question(url + "A" * 300_000), 413, "more than 300000 bytes")
    _, response = server.send("POST", CHAT, iter([b"x" * 100_000] * 4), Content_Type="application/json")  # no Content-Length
    assert response.status == 413
    wide = base64.b64encode(png(500, 401)).decode()
    server.refused(question(f"data:image/png;base64,{wide}"), 400, "found 500 x 401 pixels, expected at most 200000")
    assert server.ask(question("data:image/png;base64," + base64.b64encode(png(500, 400)).decode()))[0] == 200


def png(width, height):
    """A white image."""
    import struct
    import zlib

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = zlib.compress((b"\0" + b"\xff" * width) * height)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)) + chunk(b"IDAT", rows)
            + chunk(b"IEND", b""))


def test_a_body_that_does_not_come(server, url):
    with socket.create_connection(("127.0.0.1", server.port), 30) as line:
        line.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n".encode())
        assert b" 408 " in line.recv(1 << 16).split(b"\r\n")[0]
    for _ in range(20):  # and clients that leave in the middle of one take no place
        with socket.create_connection(("127.0.0.1", server.port), 30) as line:
            line.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\nx".encode())
    assert until(lambda: server.ask(question(url))[0] == 200)


def until(true):
    end = time.monotonic() + 30
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_who_is_let_in(server, url, model, processor):
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "localhost.", "[::2]", "[::1", "2130706433"):
        assert server.refused(question(url), 403, "expected one of 127.0.0.1, [::1], localhost", Host=host)[1]["code"] == "host_not_allowed"
        _, response = server.send("GET", "/", Host=host)
        assert response.status == 403
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1:9", "[::1]:8000"):
        assert server.ask(question(url, max_tokens=1), Host=host)[0] == 200
    assert server.ask(question(url, max_tokens=1), Host="localhost:5", Origin="http://localhost:5")[0] == 200
    for origin in ("https://evil.example", "null", "http://localhost:6"):
        assert server.refused(question(url), 403, "page of", Host="localhost:5", Origin=origin)[1]["code"] == "origin_not_allowed"
    with Server(build(model, processor, "shapes", hosts=None)) as anywhere:
        assert anywhere.ask(question(url, max_tokens=1), Host="server.example")[0] == 200


def test_the_page_is_whole(server):
    _, response = server.send("GET", "/")
    text, policy = response.read().decode(), response.headers["Content-Security-Policy"]
    assert response.status == 200 and "default-src 'none'" in policy and "script-src 'sha256-" in policy
    assert "http://" not in text and "https://" not in text and "src=" not in text  # nothing from elsewhere


def test_the_queue(model, processor, url, caplog):
    slow = Slow(model)
    with Server(build(slow, processor, "shapes", Limits(queue=2))) as server:
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(server.ask(question(url)))) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert slow.began.wait(30)
        assert until(lambda: server.ask({})[0] == 503)  # all three have their places
        headers, error = server.refused(question(url + "A" * 5_000_000), 503, "2 requests are waiting")
        assert 1 <= int(headers["Retry-After"]) <= 10 and error["code"] == "queue_full"
        with socket.create_connection(("127.0.0.1", server.port), 30) as line:  # refused, and gone before it was told
            line.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx".encode())
        slow.gate.set()
        for thread in threads:
            thread.join(30)
        assert not caplog.records
        assert [answer[0] for answer in answers] == [200] * 3
        assert {answer[2]["choices"][0]["message"]["content"] for answer in answers} == {CAPTION}
        assert server.ask(question(url))[0] == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away(model, processor, url, stream):
    slow = Slow(model)
    with Server(build(slow, processor, "shapes", Limits(queue=1))) as server:
        chat = server.app.app.routes[-1].endpoint
        assert chat.n_places == 2
        lines = [server.connect() for _ in range(2)]  # one is answered, and one waits
        for line in lines:
            line.request("POST", CHAT, json.dumps(question(url, stream=stream)), {"Content-Type": "application/json"})
            assert slow.began.wait(30)
        assert until(lambda: chat.n_places == 0)
        for line in lines:
            line.sock.close()
        assert until(lambda: chat.n_places == 2)  # seen while nothing is computed
        slow.gate.set()
        assert server.ask(question(url))[2]["choices"][0]["message"]["content"] == CAPTION
        assert slow.n_tokens <= 1 + 12  # of the first one token, of the second none


def test_closing_ends_an_answer(model, processor, url):
    slow = Slow(model)
    with Server(build(slow, processor, "shapes"), timeout_graceful_shutdown=1) as server:
        line = server.connect()
        line.request("POST", CHAT, json.dumps(question(url)), {"Content-Type": "application/json"})
        assert slow.began.wait(30)
        threading.Timer(1.5, slow.gate.set).start()
    assert slow.n_tokens == 1


def test_a_failure_is_told(model, processor, url, caplog):
    class Broken(Slow):
        def stream(self, *arguments, **settings):
            if self.gate.is_set():
                yield "a"
            raise RuntimeError("the disk is gone")

    broken = Broken(model)
    with Server(build(broken, processor, "shapes")) as server:
        server.refused(question(url), 500, "the disk is gone")
        broken.gate.set()
        _, response = server.send("POST", CHAT, question(url, stream=True))
        lines = response.read().decode().split("\n\n")
        assert "the disk is gone" in lines[-2] and json.loads(lines[-2][6:])["error"]["type"] == "server_error"
        assert not any("[DONE]" in line for line in lines)


def test_a_folder_without_masks(model, processor, url, folder, tmp_path):
    for name in os.listdir(folder):
        if not name.startswith("vae-oid"):
            (tmp_path / name).symlink_to(pathlib.Path(folder) / name)
    bare = paligemma.PaliGemmaForConditionalGeneration.from_pretrained(tmp_path)
    with Server(build(bare, processor, "shapes")) as server:
        found = server.ask(question(url, "segment red circle", objects=True))[2]["objects"]
        assert [set(thing) for thing in found] == [{"label", "box"}]


def test_limits_are_read_before_anything_is_computed(url):
    assert read(json.dumps(question(url)).encode(), "shapes", Limits(new_tokens=5)).settings["max_new_tokens"] == 5
    with pytest.raises(Refused):
        read(json.dumps(question(url)).encode(), "other", Limits())


def command(*arguments, **settings):
    return subprocess.Popen([sys.executable, "-m", "paligemma.demo", *map(str, arguments)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, **settings)


def test_the_command(folder, url, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(paligemma.__file__).parents[1])}
    process = command(folder, "--port", 0, "--name", "shapes", env=environment)
    address = process.stdout.readline().split()[0]
    port = int(address.rstrip("/").rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", CHAT, json.dumps(question(url)), {"Content-Type": "application/json"})
    assert json.loads(connection.getresponse().read())["choices"][0]["message"]["content"] == CAPTION
    taken = command(folder, "--port", port, env=environment)
    assert taken.wait(30) == 1 and "--port has another" in taken.stderr.read()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0 and process.stderr.read() == ""
    missing = command(tmp_path / "none", "--port", 0, env=environment)
    assert missing.wait(30) == 1 and "none" in missing.stderr.read()
    assert command("--port", -1, folder, env=environment).wait(30) == 2
    (tmp_path / "uvicorn.py").write_text("raise ImportError('No module named uvicorn')")
    bare = command(folder, env={**environment, "PYTHONPATH": f"{tmp_path}:{environment['PYTHONPATH']}"})
    assert bare.wait(30) == 1 and 'pip install ".[demo]"' in bare.stderr.read()
