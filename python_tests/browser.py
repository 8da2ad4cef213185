"""Opens a page in a headless browser that reaches no network, and asks a script there what it sees.

Chromium or Chrome is taken if one is on the path or NRI_FAST_BROWSER is its path; otherwise, or if NRI_FAST_BROWSER is
"kaleido", the one inside kaleido 0.2.1, a package that pip installs. The page lies in a frame of the width asked for,
and everything that goes wrong in it is collected: errors of scripts, files that do not load, requests that the page's
own policy forbids.
"""

import html
import importlib.util
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome-headless-shell")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--proxy-server=http://127.0.0.1:9",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
REASON = "no browser: install chromium, or `pip install kaleido==0.2.1`"
SECONDS = 120

WATCH = """<script>
window.wrong = [];
addEventListener("error", (e) => wrong.push(e.message || "does not load: " + (e.target.src || e.target.href)), true);
addEventListener("unhandledrejection", (e) => wrong.push(String(e.reason)));
addEventListener("securitypolicyviolation", (e) => wrong.push("asks for " + e.blockedURI));
</script>"""
PROBE = """
async function probed() {
  const frame = document.createElement("iframe");
  Object.assign(frame.style, {width: WIDTH + "px", height: "900px", border: "0"});
  const loaded = new Promise((resolve) => { frame.onload = resolve; });
  frame.srcdoc = PAGE;
  document.body.append(frame);
  await loaded;
  try {
    const answer = await (async (window, document) => { SCRIPT })(frame.contentWindow, frame.contentDocument);
    const asked = frame.contentWindow.performance.getEntriesByType("resource").map((entry) => entry.name);
    return {answer, wrong: [...frame.contentWindow.wrong, ...asked.map((name) => "asked for " + name)]};
  } catch (error) { return {answer: null, wrong: [String(error)]}; }
}
"""


def chromium():
    """Path of a browser, or None."""
    wanted = os.environ.get("NRI_FAST_BROWSER")
    if wanted == "kaleido":
        return None
    return wanted or next(filter(None, map(shutil.which, NAMES)), None)


def kaleido():
    """Folder of the browser inside kaleido 0.2.1, or None; the package itself is not imported."""
    spec = importlib.util.find_spec("kaleido")
    folder = None if spec is None or spec.origin is None else Path(spec.origin).parent / "executable"
    return folder if folder is not None and (folder / "bin" / "kaleido").exists() else None


def there_is_one():
    return chromium() is not None or kaleido() is not None


def look(page, script, folder, width=1000):
    """What a script's `return` says about a page, and what went wrong in it.

    `script` sees the page's `window` and `document`, and may await; `folder` is for scratch files.
    """
    watched = page.replace("<head>", "<head>" + WATCH, 1)
    assert watched != page, "the page has no <head>"
    text = json.dumps(watched).replace("<", "\\u003c")
    probe = PROBE.replace("SCRIPT", script).replace("WIDTH", str(width)).replace("PAGE", text)
    said = (_in_chromium if chromium() else _in_kaleido)(probe, folder)
    return said["answer"], said["wrong"]


def _in_chromium(probe, folder):
    harness = folder / "harness.html"
    harness.write_text(
        f'<!DOCTYPE html><html><head><meta charset="utf-8"></head><body><pre id="said"></pre><script>{probe}\n'
        'probed().then((said) => { document.getElementById("said").textContent = JSON.stringify(said); });'
        "</script></body></html>",
        encoding="utf-8",
    )
    flags = [*FLAGS, "--headless", f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=20000", "--dump-dom"]
    done = subprocess.run(
        [chromium(), *flags, harness.as_uri()], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    found = re.search(r'<pre id="said">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found, f"the browser said nothing: {done.stderr[-2000:]}"
    return json.loads(html.unescape(found[1]))


def _in_kaleido(probe, folder):
    """Kaleido calls one function of a script in its working directory, and prints what that returns."""
    (folder / "js").mkdir(exist_ok=True)
    (folder / "js" / "kaleido_scopes.js").write_text(
        f"{probe}\nvar kaleido_scopes = {{plotly: async () => ({{code: 0, said: await probed()}})}};", encoding="utf-8"
    )
    (folder / "nothing.js").write_text("")
    home = kaleido()
    environment = os.environ | {
        "LD_LIBRARY_PATH": str(home / "lib"),
        "FONTCONFIG_PATH": str(home / "etc" / "fonts"),
        "XDG_DATA_HOME": str(home / "xdg"),
    }
    arguments = [str(home / "bin" / "kaleido"), "plotly", f"--plotlyjs={folder / 'nothing.js'}", *FLAGS]
    with subprocess.Popen(
        arguments, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    ) as browser:  # fmt: skip
        try:
            browser.stdout.readline()  # that it has begun
            browser.stdin.write("{}\n")
            browser.stdin.flush()
            return json.loads(browser.stdout.readline())["said"]
        finally:
            browser.kill()
