"""The page of features in Chromium: sorting, search, filter, links, keyboard, print, no JavaScript. Run by hand:

    pip install playwright    # and a Chromium, such as Debian's package
    python tests/browser_report.py FOLDER [/usr/bin/chromium]

It writes pages and screenshots into FOLDER, prints how long a page of 2,048 latents takes, and fails at the first
surprise.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pyrovae.metrics import LatentFeatures
from pyrovae.plots import feature_report

EVIL = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"
VISIBLE = "[...document.querySelectorAll('article:not([hidden])')].map(a => Number(a.dataset.number))"


def features(num: int, dim: int, width: int, active: float = 0.1) -> LatentFeatures:
    """Codes whose densities fall with the number of the latent; the last is dead, the first is dense."""
    generator = torch.Generator().manual_seed(0)
    density = torch.linspace(8 * active, 0.02, dim)
    density[-1] = 0.0
    codes = torch.rand(num, dim, generator=generator) * (torch.rand(num, dim, generator=generator) < density)
    atoms = torch.randn(dim, width, generator=generator)
    return LatentFeatures((codes @ atoms).sigmoid(), codes, atoms)


def write_pages(folder: Path) -> None:
    small, labels = features(300, 24, 9), torch.arange(300) % 10
    columns = [EVIL, "blood pressure", *(f"column {i}" for i in range(7))]
    pages = {
        "table": feature_report(small, columns=columns, labels=labels, title=EVIL),
        "pictures": feature_report(features(300, 64, 64), (1, 8, 8), labels=labels),
        "wide": feature_report(features(1000, 2048, 784, 0.01), (1, 28, 28)),
    }
    for name, page in pages.items():
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
        print(f"{name}.html: {len(page) / 1e6:.2f} MB")


@contextmanager
def opened(browser: Any, path: Path, **options: Any) -> Iterator[Any]:
    """A page; an error in the console, or a request for anything outside the file, fails."""
    context = browser.new_context(viewport={"width": 1360, "height": 900}, **options)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text))
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    yield page
    assert not problems, problems
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}, asked
    assert sum(url.startswith("file") for url in asked) == 1, asked
    context.close()


def check_controls(browser: Any, folder: Path) -> None:
    found = features(300, 24, 9)
    density = (found.codes != 0).double().mean(0)
    with opened(browser, folder / "table.html") as page:
        assert page.title() == EVIL, "a text was run"
        by_density = density.argsort(descending=True, stable=True).tolist()
        assert page.evaluate(VISIBLE) == by_density
        page.select_option("select[name=sort]", "strength")
        assert page.evaluate(VISIBLE) == found.strength.argsort(descending=True, stable=True).tolist()
        page.select_option("select[name=sort]", "name")
        assert page.evaluate(VISIBLE) == list(range(24)), "latent 10 comes after latent 9"
        page.check("input[name=reverse]")
        assert page.evaluate(VISIBLE) == list(range(23, -1, -1))
        page.uncheck("input[name=reverse]")

        page.select_option("select[name=filter]", "dead")
        assert page.evaluate(VISIBLE) == [23]
        page.select_option("select[name=filter]", "dense")
        assert page.evaluate(VISIBLE) == (density > 0.5).nonzero()[:, 0].tolist()
        page.select_option("select[name=filter]", "alive")
        assert page.evaluate(VISIBLE) == list(range(23))
        page.select_option("select[name=filter]", "")

        def searched(text: str) -> list[int]:
            page.fill("input[name=query]", text)
            assert page.inner_text("output") == f"{len(page.evaluate(VISIBLE))} of 24 latents"
            return page.evaluate(VISIBLE)

        assert searched("17") == searched("#17") == [17]
        strong = [j for j in range(24) if 1 in found.atoms[j].abs().argsort(descending=True)[:5].tolist()]
        assert searched("Blood") == searched("pressure blood") == strong
        assert searched(f"blood {strong[0]}") == strong[:1]
        assert searched("<img src=x") == [j for j in range(24) if 0 in found.atoms[j].abs().topk(5).indices.tolist()]
        labels = torch.arange(300) % 10
        top = {j: labels[found.codes[:, j] != 0].bincount(minlength=10) for j in range(24)}
        with_three = [j for j in top if 3 in top[j].argsort(descending=True, stable=True)[:3].tolist() and top[j][3]]
        assert searched("label:3") == with_three
        assert searched("nothing like it") == []
        page.click("#none button")
        assert len(page.evaluate(VISIBLE)) == 24

        searched("17")
        page.evaluate("location.hash = '#latent-3'")
        page.wait_for_function("!document.getElementById('latent-3').hidden")
        assert len(page.evaluate(VISIBLE)) == 24, "a link to a latent that is hidden shows it"
    with opened(browser, folder / "table.html") as page:
        focused = []
        for _ in range(8):
            page.keyboard.press("Tab")
            focused.append(page.evaluate("document.activeElement.name || document.activeElement.textContent.trim()"))
        assert focused[0] == "Skip to the latents"
        assert focused[2:6] == ["sort", "reverse", "filter", "query"], focused
        page.screenshot(path=folder / "table.png")


def check_looks(browser: Any, folder: Path) -> None:
    for scheme in ("light", "dark"):
        with opened(browser, folder / "pictures.html", color_scheme=scheme) as page:
            page.screenshot(path=folder / f"pictures-{scheme}.png")
            page.click("summary")
            for width in (1360, 1000, 390):
                page.set_viewport_size({"width": width, "height": 900})
                wide = page.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, f"{wide} pixels wide in a window of {width}"
            page.screenshot(path=folder / f"narrow-{scheme}.png")
    with opened(browser, folder / "pictures.html", java_script_enabled=False) as page:
        assert page.locator("article").count() == 64
        assert not page.locator("#controls").is_visible()
        assert page.locator("article").first.is_visible()
    with opened(browser, folder / "pictures.html") as page:
        page.pdf(path=folder / "pictures.pdf")
        page.emulate_media(media="print")
        assert not page.locator("#controls").is_visible()


def check_speed(browser: Any, folder: Path) -> None:
    started = time.perf_counter()
    with opened(browser, folder / "wide.html") as page:
        print(f"2,048 latents: open in {time.perf_counter() - started:.2f} s", end="")
        for name, action in {
            "sort": lambda: page.select_option("select[name=sort]", "strength"),
            "search": lambda: page.fill("input[name=query]", "latent 7"),
            "show all": lambda: page.fill("input[name=query]", ""),
            "to the end": lambda: page.keyboard.press("Control+End"),
        }.items():
            started = time.perf_counter()
            action()
            page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            print(f", {name} in {time.perf_counter() - started:.2f} s", end="")
        print()
        page.screenshot(path=folder / "wide.png")


def main() -> None:
    from playwright.sync_api import sync_playwright

    folder, chromium = Path(sys.argv[1]).resolve(), sys.argv[2] if len(sys.argv) > 2 else "/usr/bin/chromium"
    folder.mkdir(exist_ok=True)
    write_pages(folder)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for check in (check_controls, check_looks, check_speed):
            check(browser, folder)
            print(f"{check.__name__}: passed")
        browser.close()


if __name__ == "__main__":
    main()
