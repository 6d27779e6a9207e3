#!/usr/bin/env python3
# Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
"""The demo's page in headless Chromium: drops an image, asks, and sees the text stream in and boxes and masks drawn.

    PALIGEMMA_LIBRARY=$PWD/build/lib PYTHONPATH=python python tests/demo/look.py [--screenshot docs/demo.png]

Needs starlette, uvicorn and Chromium (Debian: chromium); exit status 77 where one is missing. It talks to Chromium through
the pipe of its devtools, so it needs no driver. Each line that it prints is something that was seen to hold."""
import argparse
import base64
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMAGE = ROOT / "examples" / "demo" / "images" / "shapes.png"
SECONDS = 60  # for anything that is waited for


class Browser:
    """A page of a headless Chromium."""

    def __init__(self, program, folder, url):
        (commands, self.to), (self.back, answers) = os.pipe(), os.pipe()
        self.process = subprocess.Popen(
            ["sh", "-c", f'exec "$0" "$@" 3<&{commands} 4>&{answers}', program, "--headless=new", "--no-sandbox",
             "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}", "--remote-debugging-pipe", "about:blank"],
            pass_fds=(commands, answers), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(commands)
        os.close(answers)
        self.rest, self.count, self.session, self.events = b"", 0, None, []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self(f"{domain}.enable")
        self("Emulation.setDeviceMetricsOverride", width=1120, height=750, deviceScaleFactor=1, mobile=False)
        self("Page.navigate", url=url)

    def __call__(self, method, **params):
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("id") == self.count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def read(self):
        while b"\0" not in self.rest:
            part = os.read(self.back, 1 << 20)
            if not part:
                raise RuntimeError("Chromium ended")
            self.rest += part
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def run(self, script):
        """The value of a JavaScript expression on the page."""
        answer = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, script):
        end = time.monotonic() + SECONDS
        while not self.run(script):
            if time.monotonic() > end:
                raise RuntimeError(f"not within {SECONDS} s: {script}; the page says: {self.run('document.body.innerText')}")
            time.sleep(0.02)

    def type(self, text):
        self.run("at('prompt').focus(); at('prompt').select()")
        self("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")

    def drop(self, path):
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self("Input.dispatchDragEvent", type=kind, x=300, y=400, data=data)

    def complaints(self):
        """What the console has of errors: scripts that failed, what the policy refused."""
        found = [event["params"] for event in self.events if event.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded")]
        return [entry for entry in found if entry.get("entry", {}).get("level", "error") == "error"]


def look(browser, screenshot):
    browser.wait("document.readyState == 'complete' && typeof at == 'function' && at('model').textContent == 'shapes'")
    browser.type("caption en")
    browser.wait("at('answer').textContent == 'Choose an image first.'")
    print("without an image it asks for one")

    browser.drop(IMAGE)
    browser.wait("image && !at('canvas').hidden")
    assert browser.run("[image.naturalWidth, image.naturalHeight]") == [336, 336]
    print("a dropped image is shown")

    browser.run("""window.seen = []; new MutationObserver(() => {
        const text = at('answer').textContent;
        if (text && seen.at(-1) != text) seen.push(text);
    }).observe(at('answer'), { childList: true, subtree: true })""")
    browser.type("caption en")
    browser.wait("at('status').textContent.includes('tokens in')")
    expected = "a red circle, a purple star and a yellow triangle"
    assert browser.run("at('answer').textContent") == expected
    seen = browser.run("seen")
    assert all(expected.startswith(text) for text in seen), seen
    print("the caption is the model's")

    # a slow line: the demo model says all of it within milliseconds
    browser("Network.enable")
    slow = {"offline": False, "latency": 0, "uploadThroughput": -1}
    browser("Network.emulateNetworkConditions", downloadThroughput=20000, **slow)
    before = browser.run("at('canvas').toDataURL()")
    browser.type("segment red circle ; purple star ; yellow triangle")
    browser.wait("at('status').textContent.includes('tokens in')")
    labels = browser.run("[...document.querySelectorAll('#objects li')].map(line => line.childNodes[1].textContent)")
    assert labels == ["red circle", "purple star", "yellow triangle"], labels
    assert browser.run("objects.every(thing => thing.mask)") and browser.run("at('canvas').toDataURL()") != before
    seen = [text for text in browser.run("seen") if text.startswith("<loc")]
    assert len(seen) >= 5 and all(seen[-1].startswith(text) for text in seen), seen
    print(f"text streams in: it was seen at {len(seen)} lengths")
    browser("Network.emulateNetworkConditions", downloadThroughput=-1, **slow)
    # in the middle of the first box, far from its edges: the circle's colour, mixed with the mask's
    box = browser.run("objects[0].box")
    x, y = (int(720 * (box[k] + box[k + 2]) / 2) for k in (0, 1))
    inside = browser.run(f"[...at('canvas').getContext('2d').getImageData({x}, {y}, 1, 1).data]")
    browser.run("(objects = [], draw())")
    bare = browser.run(f"[...at('canvas').getContext('2d').getImageData({x}, {y}, 1, 1).data]")
    mixed = [bare[k] + (colour - bare[k]) * 130 / 255 for k, colour in enumerate((0x00, 0x90, 0xff))]
    assert all(abs(inside[k] - mixed[k]) <= 3 for k in range(3)), (inside, bare, mixed)
    print("three boxes with masks are drawn and listed")

    browser.type("segment red circle ; purple star ; yellow triangle")
    browser.wait("at('status').textContent.includes('tokens in')")
    if screenshot:
        picture = base64.b64decode(browser("Page.captureScreenshot", format="png")["data"])
        pathlib.Path(screenshot).write_bytes(picture)
        print(f"{screenshot}: {len(picture)} bytes")

    browser.run("""(async () => {  // a WebP, which the server does not read: the browser makes a PNG of it
        const copy = Object.assign(document.createElement('canvas'), { width: 336, height: 336 });
        copy.getContext('2d').drawImage(image, 0, 0);
        await load(await new Promise(done => copy.toBlob(done, 'image/webp', 1)));
    })()""")
    assert browser.run("url.slice(0, 15)") == "data:image/png;"
    browser.run("[...document.querySelectorAll('#chips button')][0].click()")
    browser.wait("at('status').textContent.includes('tokens in')")
    assert browser.run("at('answer').textContent") == expected
    print("another format is sent as a PNG, and a button asks")

    browser.run("load(new File(['no image'], 'notes.txt'))")
    browser.wait("at('answer').classList.contains('error')")
    assert "notes.txt is no image" in browser.run("at('answer').textContent")
    assert browser.run("image.naturalWidth") == 336
    print("what is no image is refused")

    browser.type("x" * 9000)
    browser.wait("at('answer').textContent.includes('max_text_bytes')")
    print("errors of the server are shown")
    left = [entry for entry in browser.complaints() if "400 (Bad Request)" not in json.dumps(entry)]
    assert not left, left
    print("the console has no other errors, and nothing came from elsewhere")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--screenshot", help="a PNG of the page with boxes")
    screenshot = parser.parse_args().screenshot
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not program:
        print("skipped: Chromium is not installed (Debian: apt install chromium)")
        return 77
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        print(f"skipped: {error} (pip install starlette uvicorn)")
        return 77
    server = subprocess.Popen([sys.executable, "-m", "paligemma.demo", ROOT / "examples" / "demo" / "model", "--port", "0",
                               "--name", "shapes"], stdout=subprocess.PIPE, text=True)
    browser = None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            line = server.stdout.readline()
            if "http://" not in line:
                raise RuntimeError("the server did not start")
            browser = Browser(program, folder, line.split()[0])
            look(browser, screenshot)
        finally:
            for process in (browser and browser.process, server):
                if process:
                    process.terminate()
                    process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
