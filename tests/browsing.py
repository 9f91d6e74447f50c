"""A browser that is told what to do, for pages that take their time: Chromium, by the Chrome DevTools Protocol."""

import json
import os
import select
import shutil
import subprocess
import sys
import time

from page_reading import BROWSER

__all__ = ["Browser"]

# The browser reads commands from descriptor 3, and answers on 4.
_LAUNCH = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
# What people read, also inside of components and frames.
_TEXT = """(() => {
    const texts = []
    const collect = (node) => {
        if (node.nodeType === Node.TEXT_NODE) texts.push(node.textContent)
        if (["SCRIPT", "STYLE", "TEMPLATE", "NOSCRIPT"].includes(node.nodeName)) return
        for (const inside of [node.shadowRoot, node.contentDocument, ...node.childNodes]) inside && collect(inside)
    }
    collect(document.documentElement)
    return texts.join("\\n")
})()"""


class Browser:
    """A browser with one page; a context that ends it.

    Args:
        profile: an empty folder for what it keeps.
    """

    def __init__(self, profile):
        self._profile, self._ids, self._received = profile, 0, b""

    def __enter__(self):
        for_browser, self._commands = os.pipe()
        self._answers, of_browser = os.pipe()
        ends = (for_browser, of_browser)
        command = [
            sys.executable,
            "-c",
            _LAUNCH,
            *map(str, ends),
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
        ]
        command += ["--remote-debugging-pipe", "--window-size=1600,2000", f"--user-data-dir={self._profile}"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, pass_fds=ends, **quiet)
        for end in ends:
            os.close(end)
        self._page = {}
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._page = {"sessionId": self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        return self

    def __exit__(self, *raised):
        self._process.kill()
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)
        shutil.rmtree(self._profile, ignore_errors=True)

    def open(self, address):
        """Goes to an address; its scripts run on."""
        self._call("Page.navigate", url=address)

    def read(self):
        """Returns the text of the page as it is now."""
        return self._call("Runtime.evaluate", expression=_TEXT)["result"].get("value", "")

    def wait_for(self, *texts, seconds=120):
        """Returns the text of the page once it holds all of `texts`; raises `AssertionError` if it never does."""
        end = time.monotonic() + seconds
        while missing := [text for text in texts if text not in (shown := self.read())]:
            assert time.monotonic() < end, f"{missing} are not on the page: {shown}"
            time.sleep(0.2)
        return shown

    def _call(self, method, **parameters):
        self._ids += 1
        message = {"id": self._ids, "method": method, "params": parameters, **self._page}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._ids:
            pass
        assert "result" in answer, answer
        return answer["result"]

    def _receive(self):
        while b"\0" not in self._received:
            assert select.select([self._answers], [], [], 120)[0], "the browser does not answer"
            received = os.read(self._answers, 2**20)
            assert received, "the browser has ended"
            self._received += received
        message, _, self._received = self._received.partition(b"\0")
        return json.loads(message)
