# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""Worker: requests beside a loop, on the demo model."""
import pathlib
import time

import numpy as np
import pytest

from paligemma import AutoProcessor, Busy, Cancelled, PaliGemmaForConditionalGeneration, Worker, parse_answer

DEMO = pathlib.Path(__file__).parents[2] / "examples" / "demo" / "model"


@pytest.fixture(scope="module")
def demo():
    return PaliGemmaForConditionalGeneration.from_pretrained(DEMO), AutoProcessor.from_pretrained(DEMO)


@pytest.fixture
def frame():
    return np.random.default_rng(3).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def end_of(worker, ticket):
    """The pieces, objects and end of a ticket; nothing else runs."""
    pieces, objects = [], []
    while True:
        event = worker.wait(60)
        assert event is not None and event.ticket == ticket
        if event.kind == "done":
            return pieces, objects, event
        if event.kind == "text":
            pieces.append(event.text)
        else:
            objects.append(event.object)


def test_answers_are_those_of_ask(demo, frame):
    model, processor = demo
    with Worker(model, processor, max_new_tokens=16, n_threads=1) as worker:
        assert worker.poll() is None and worker.wait(0.01) is None and worker.events() == []
        for prompt in ("caption en", "detect circle ; square"):
            pieces, objects, end = end_of(worker, worker.submit(frame, prompt, objects=True))
            assert end.error is None and end.text == "".join(pieces)
            assert end.text == model.ask(frame, prompt, processor=processor, max_new_tokens=16)
            assert end.n_new_tokens > 0 and end.run_seconds > 0
            found = [found for found in objects if found.box]
            assert len(found) == end.text.count("<loc") // 4
            assert all(0 <= found.box[0] <= 80 and 0 < found.score <= 1 for found in found)
        info = worker.info()
        assert info["n_done"] == 2 and info["n_waiting"] == info["n_running"] == info["n_not_polled"] == 0
    assert worker.closed
    with pytest.raises(ValueError, match="the worker is closed"):
        worker.poll()


def test_boxes_in_both_conventions(demo):
    model, processor = demo
    image = str(DEMO.parent / "images" / "shapes.png")  # 336 x 336
    with Worker(model, processor, max_new_tokens=32, n_threads=1) as worker:
        found = {}
        for convention in (1024, 1023):
            ticket = worker.submit(image, "detect red circle", objects=True, convention=convention)
            _, objects, end = end_of(worker, ticket)
            found[convention] = [one.box for one in objects]
            assert found[convention] == [one.box for one in parse_answer(end.text, (336, 336), convention=convention)]
        assert len(found[1024]) == 1 and found[1024] != found[1023]
        with pytest.raises(ValueError, match="convention is 1000, expected 1024 or 1023"):
            worker.submit(image, "detect red circle", convention=1000)


def test_ends(demo, frame, tmp_path):
    model, processor = demo
    with Worker(model, max_waiting=1, max_running=1, n_threads=1, max_new_tokens=16, nice=1) as worker:
        first = worker.submit(frame, "caption en")
        while worker.info()["n_running"] == 0 and worker.info()["n_done"] == 0:
            time.sleep(0.001)
        second = worker.submit(frame, "caption en", stream=5, deadline=100)
        third = worker.submit(frame, "caption en", stream=5)
        worker.cancel(third)
        ends = {}
        while len(ends) < 3:
            event = worker.wait(60)
            if event.kind == "done":
                ends[event.ticket] = event
        assert ends[first].error is None
        if ends[second].error is not None:  # it waited when the third came
            assert isinstance(ends[second].error, Cancelled) and ends[second].error.status_name == "PG_ERROR_REPLACED"
        assert ends[third].error is None or isinstance(ends[third].error, Cancelled)
        _, _, late = end_of(worker, worker.submit(frame, "caption en", deadline=1e-9))
        assert isinstance(late.error, TimeoutError) and "deadline" in str(late.error) and late.text == ""
        _, _, gone = end_of(worker, worker.submit(tmp_path / "no.png", "caption en"))
        assert isinstance(gone.error, FileNotFoundError)
        with pytest.raises(Busy, match="requests"):
            for _ in range(1000):
                worker.submit(frame, "caption en")


def test_bad_arguments(demo, frame):
    model, processor = demo
    for settings, words in (({"n_workers": 65}, "n_workers is 65"), ({"nice": 20}, "nice is 20"),
                            ({"max_waiting": -1}, "max_waiting"), ({"cpus": [-1]}, "cpus"),
                            ({"cpus": [0], "leave_cpu_free": True}, "leave_cpu_free")):
        with pytest.raises(ValueError, match=words):
            Worker(model, processor, **settings)
    with Worker(model, processor, max_new_tokens=4) as worker:
        with pytest.raises(ValueError, match="max_new_tokens is 5, expected 0 .* to 4"):
            worker.submit(frame, "caption en", max_new_tokens=5)
        with pytest.raises(TypeError, match="expected a str"):
            worker.submit(frame, None)
        with pytest.raises(ValueError, match="ticket is 7"):
            worker.cancel(7)
        assert worker.poll() is None
