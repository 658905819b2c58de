#!/usr/bin/env python3
"""Uses the server's page in a headless browser as a person does, at two widths, and fails at the first thing that does not work.

    page.py http://127.0.0.1:7860 [--token TOKEN] [--screenshots FOLDER]

Needs a running server with a quick model, `pip install playwright`, and Chromium (from the system, or by `playwright install
chromium`). Without one of them it says so and exits with 0. It deletes the images that it makes.
"""

import argparse
import base64
import pathlib
import shutil
import sys

try:
    from playwright.sync_api import Error, expect, sync_playwright
except ImportError:
    print("not checked: playwright for Python is not installed")
    sys.exit(0)

BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge"]
SIZES = {"wide": {"width": 1280, "height": 900}, "narrow": {"width": 390, "height": 844}}
PROMPT = "a red circle on white paper"
MINUTE = 60_000

# Controls that a screen reader could not name, and whether the page is wider than the window.
UNNAMED = """() => [...document.querySelectorAll('button, input, select, textarea, a[href], summary, canvas[tabindex]')]
  .filter((control) => control.checkVisibility())
  .filter((control) => !(control.getAttribute('aria-label') || control.labels?.length || control.textContent.trim()))
  .map((control) => control.outerHTML.slice(0, 120))"""
OVERFLOW = "() => document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth"
DROP = """([selector, data]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], 'image.png', { type: 'image/png' }));
  const target = document.querySelector(selector);
  for (const type of ['dragover', 'drop']) target.dispatchEvent(new DragEvent(type, { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


def launch(playwright):
    """The system's Chromium, else playwright's own, else nothing."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    # Chromium refuses its sandbox to root, whom containers run as.
    try:
        return playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
    except Error:
        return None


class Visit:
    """One window on the page; collects what the browser complains about."""

    def __init__(self, browser, arguments, size, scheme):
        self.arguments = arguments
        self.name = f"{size}-{scheme}"
        self.context = browser.new_context(viewport=SIZES[size], color_scheme=scheme, reduced_motion="reduce", accept_downloads=True)
        self.page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.complaints = []
        self.page.on("console", lambda message: message.type == "error" and self.complain(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def complain(self, text):
        # The browser itself reports each refused request; that the page handles them is checked below.
        if "status of 401" not in text and "status of 413" not in text:
            self.complaints.append(text)

    def picture(self, what):
        if self.arguments.screenshots:
            self.page.wait_for_timeout(150)
            self.page.screenshot(path=pathlib.Path(self.arguments.screenshots) / f"{self.name}-{what}.png")

    def close(self):
        overflow = self.page.evaluate(OVERFLOW)
        assert overflow <= 0, f"{self.name}: the page is {overflow} pixels wider than the window"
        assert not self.complaints, f"{self.name}: the browser says {self.complaints}"
        self.context.close()

    # What a person does

    def open(self):
        page = self.page
        page.goto(self.arguments.url)
        dialog = page.locator("#token-dialog")
        connection = page.locator("#connection")
        self.until("document.querySelector('#token-dialog').open || document.querySelector('#connection').dataset.state === 'open'")
        if dialog.is_visible():
            assert self.arguments.token, "the server asks for a token: give it with --token"
            self.picture("token")
            page.fill("#token", "wrong" + self.arguments.token)
            page.keyboard.press("Enter")
            expect(page.locator("#token-error")).to_be_visible()
            page.fill("#token", self.arguments.token)
            page.keyboard.press("Enter")
            expect(dialog).to_be_hidden()
            stored = page.evaluate("JSON.stringify(localStorage)")
            assert self.arguments.token not in stored, "the token is in localStorage"
        expect(connection).to_have_attribute("data-state", "open")
        self.until("document.querySelector('#sampler').options.length > 1")

    def until(self, condition, seconds=15):
        """playwright's own waiting would be an eval in the page, which the page's Content-Security-Policy forbids."""
        for _ in range(seconds * 10):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"{self.name}: not within {seconds} seconds: {condition}")

    def section(self, name):
        section = self.page.locator(f"#section-{name}")
        if section.get_attribute("open") is None:
            section.locator("summary").first.click()

    def fill(self, **fields):
        for field, value in fields.items():
            self.page.fill(f"#{field}", str(value))

    def tiles(self):
        return self.page.locator("#gallery .tile")

    def wait_for_images(self, count):
        expect(self.tiles()).to_have_count(count, timeout=5 * MINUTE)
        expect(self.page.locator("#queue .job")).to_have_count(0, timeout=MINUTE)

    def first_image(self):
        self.tiles().first.scroll_into_view_if_needed()
        expect(self.tiles().first.locator("img.loaded")).to_be_visible()
        self.tiles().first.click()
        expect(self.page.locator("#viewer")).to_be_visible()
        self.until("document.querySelector('#viewer-image').naturalWidth > 0")

    def delete_first(self):
        self.first_image()
        self.page.click("#viewer-delete")
        self.page.click("#viewer-delete")
        expect(self.page.locator("#viewer-delete")).to_have_text("Delete")
        if self.page.locator("#viewer").is_visible():
            self.page.keyboard.press("Escape")
        # Not opened again by the end of the deletion.
        self.page.wait_for_timeout(300)
        expect(self.page.locator("#viewer")).to_be_hidden()


def draws(visit):
    """The plan, an image by the keyboard, its large view, a reload."""
    page = visit.page
    before = visit.tiles().count()
    visit.fill(prompt=PROMPT, negative_prompt="blurry", steps=8, seed=7)
    expect(page.locator("#plan-memory")).to_contain_text("Needs")
    visit.picture("form")
    page.focus("#prompt")
    page.keyboard.press("Control+Enter")
    visit.wait_for_images(before + 1)
    page.wait_for_timeout(500)
    visit.picture("images")

    visit.first_image()
    facts = page.locator("#viewer-facts")
    expect(facts).to_contain_text("blurry")
    expect(page.locator("#viewer-prompt")).to_have_text(PROMPT)
    page.locator("#viewer-metadata summary").click()
    expect(page.locator("#viewer-json")).to_contain_text("{")
    unnamed = page.evaluate(UNNAMED)
    assert not unnamed, f"controls without a name: {unnamed}"
    page.locator("#viewer-metadata summary").click()
    visit.picture("viewer")
    with page.expect_download() as download:
        page.click("#viewer-download")
    saved = download.value
    data = pathlib.Path(saved.path()).read_bytes()
    assert data[:4] in (b"\x89PNG", b"RIFF") or data[:2] == b"\xff\xd8", "the download is no image"

    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()
    visit.fill(prompt="something else", steps=9, seed="")
    page.click("#seed-reuse")
    expect(page.locator("#seed")).to_have_value("7")
    page.click("#seed-random")
    expect(page.locator("#seed")).to_have_value("")
    visit.first_image()
    page.click("#viewer-use")
    expect(page.locator("#prompt")).to_have_value(PROMPT)
    expect(page.locator("#steps")).to_have_value("8")
    expect(page.locator("#seed")).to_have_value("7")

    visit.fill(prompt="kept over a reload")
    page.wait_for_timeout(600)
    page.reload()
    expect(page.locator("#prompt")).to_have_value("kept over a reload")
    expect(visit.tiles()).to_have_count(before + 1)
    return data


def cancels(visit):
    """A queue of two: the second waits with its position, both are cancelled."""
    page = visit.page
    before = visit.tiles().count()
    visit.fill(prompt="never finished", steps=60, n=16, seed=1)
    for _ in range(2):
        page.click("#generate")
        expect(page.locator("#generate")).to_be_enabled()
    running = page.locator("#queue .job[data-state=running]")
    queued = page.locator("#queue .job[data-state=queued]")
    expect(running).to_have_count(1, timeout=MINUTE)
    expect(queued).to_contain_text("queue")
    visit.until("document.querySelector('#queue .job[data-state=running] progress')?.value > 0", seconds=120)
    expect(running.locator(".preview img")).to_be_visible(timeout=2 * MINUTE)
    visit.picture("queue")
    queued.get_by_role("button").click()
    expect(queued).to_have_count(0)
    running.get_by_role("button").click()
    expect(running).to_have_count(0, timeout=MINUTE)
    visit.fill(n=1, steps=8)
    # A job that was cancelled keeps the images that it had finished.
    page.wait_for_timeout(500)
    for _ in range(1 if visit.tiles().count() > before else 0):
        visit.delete_first()
    expect(visit.tiles()).to_have_count(before)


def restores(visit, data):
    """An image gives its settings: chosen, and dropped on the page."""
    page = visit.page
    visit.fill(prompt="before", seed="", steps=30)
    page.set_input_files("#restore-file", {"name": "image.png", "mimeType": "image/png", "buffer": data})
    expect(page.locator("#prompt")).to_have_value(PROMPT)
    expect(page.locator("#steps")).to_have_value("8")
    visit.fill(prompt="before")
    page.evaluate(DROP, ["#results", base64.b64encode(data).decode()])
    expect(page.locator("#prompt")).to_have_value(PROMPT)
    expect(page.locator("#drop-hint")).to_be_hidden()


def masks(visit):
    """An image becomes the initial image, a mask is drawn with the pointer and with keys, and the server draws with both."""
    page = visit.page
    before = visit.tiles().count()
    visit.first_image()
    page.click("#viewer-initial")
    expect(page.locator("#init-image img")).to_be_visible()
    expect(page.locator("#strength")).to_have_value("0.75")
    page.click("#mask-open")
    canvas = page.locator("#mask-canvas")
    box = canvas.bounding_box()
    at = lambda x, y: (box["x"] + box["width"] * x, box["y"] + box["height"] * y)
    page.mouse.move(*at(0.2, 0.3))
    page.mouse.down()
    page.mouse.move(*at(0.8, 0.3), steps=12)
    page.mouse.up()
    opaque = "([x, y]) => { const c = document.querySelector('#mask-canvas'); return c.getContext('2d').getImageData(c.width * x, c.height * y, 1, 1).data[3] > 0; }"
    assert page.evaluate(opaque, [0.5, 0.3]), "the brush does not paint"
    assert not page.evaluate(opaque, [0.5, 0.7]), "the brush paints everywhere"
    page.click("#mask-erase")
    page.mouse.click(*at(0.5, 0.3))
    assert not page.evaluate(opaque, [0.5, 0.3]), "the eraser does not erase"
    page.keyboard.press("Control+z")
    assert page.evaluate(opaque, [0.5, 0.3]), "undo does not bring back what was erased"
    page.click("#mask-brush")
    canvas.focus()
    for _ in range(4):
        page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Space")
    assert page.evaluate(opaque, [0.5, 0.3 + 4 * 0.12]), "the space bar does not paint"
    visit.picture("mask")
    page.click("#mask-clear")
    assert not page.evaluate(opaque, [0.5, 0.3]), "clear does not clear"
    page.mouse.move(*at(0.3, 0.5))
    page.mouse.down()
    page.mouse.move(*at(0.7, 0.5), steps=6)
    page.mouse.up()
    page.click("#mask-done")
    expect(page.locator("#mask-remove")).to_be_visible()
    expect(page.locator("#strength")).to_have_value("1")
    page.locator("#section-image").scroll_into_view_if_needed()
    visit.picture("initial")

    with page.expect_request(lambda request: request.url.endswith("/api/jobs") and request.method == "POST") as sent:
        page.click("#generate")
    body = sent.value.post_data_json
    assert body["init_image"].startswith("upload:") and body["mask"].startswith("upload:"), body
    assert body["init_image"] != body["mask"], body
    visit.wait_for_images(before + 1)
    visit.delete_first()
    page.click("#init-image button")
    expect(page.locator("#init-options")).to_be_hidden()


def shows_sections(visit):
    """All sections at once: LoRA, ControlNet, sizes; and the names of all controls."""
    page = visit.page
    for name in ["lora", "image", "control", "upscale", "more"]:
        visit.section(name)
    if page.locator("#lora-add option").count() > 1:
        page.select_option("#lora-add", index=1)
        scale = page.locator(".lora-row input[type=number]")
        expect(scale).to_have_value("1")
        scale.fill("0.6")
        expect(page.locator("#lora-note")).to_contain_text("1 in use")
    page.click("#control-add")
    page.select_option("#size", "custom")
    expect(page.locator("#width")).to_be_visible()
    unnamed = page.evaluate(UNNAMED)
    assert not unnamed, f"controls without a name: {unnamed}"
    page.locator("#control-rows").scroll_into_view_if_needed()
    visit.picture("sections")
    assert page.evaluate(OVERFLOW) <= 0, "the sections are wider than the window"
    page.click("#reset")
    expect(page.locator(".lora-row, .control-row")).to_have_count(0)
    expect(page.locator("#size")).to_have_value("")


def refuses(visit):
    """What the server refuses is said at the button, and what does not fit in the plan."""
    page = visit.page
    page.route("**/api/plan", lambda route: route.fulfill(status=413, json={
        "error": {"code": "does_not_fit", "message": "The image needs more memory than the budget.", "smallest_budget": 3 << 30}}))
    page.route("**/api/jobs", lambda route: route.fulfill(status=413, json={
        "error": {"code": "does_not_fit", "message": "The image needs more memory than the budget.", "field": "size"}}) if route.request.method == "POST" else route.continue_())
    visit.fill(prompt=PROMPT)
    expect(page.locator("#plan-memory")).to_have_text("Does not fit into the budget")
    expect(page.locator("#plan-note")).to_contain_text("3.0 GB")
    page.click("#generate")
    expect(page.locator("#form-error")).to_contain_text("more memory")
    expect(page.locator("#size")).to_have_attribute("aria-invalid", "true")
    visit.picture("refused")
    page.unroute("**/api/plan")
    page.unroute("**/api/jobs")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--token")
    parser.add_argument("--screenshots", metavar="FOLDER")
    arguments = parser.parse_args()
    with sync_playwright() as playwright:
        browser = launch(playwright)
        if browser is None:
            print("not checked: no browser is installed")
            return
        for size, scheme in [("wide", "light"), ("narrow", "dark"), ("wide", "dark"), ("narrow", "light")]:
            visit = Visit(browser, arguments, size, scheme)
            visit.open()
            data = draws(visit)
            restores(visit, data)
            # The second colour scheme of a width only changes colours.
            shows_sections(visit)
            refuses(visit)
            masks(visit)
            if scheme == ("light" if size == "wide" else "dark"):
                cancels(visit)
            visit.delete_first()
            visit.close()
            print(f"{visit.name}: works")
        browser.close()


main()
