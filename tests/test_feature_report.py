"""The page of features, read by an HTML parser: its numbers, its pictures, and texts that are no markup."""

import base64
import hashlib
import re

import numpy as np
import pytest
import torch
from html_pages import latents, number, picture, read, terms

import pyrovae as pv
from pyrovae import metrics, plots
from pyrovae.metrics import LatentFeatures

EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>&amp;{{ 1 }}</style>"
GENERATOR = torch.Generator().manual_seed(0)
CODES = torch.randn(40, 6, generator=GENERATOR) * (torch.rand(40, 6, generator=GENERATOR) < 0.4)
CODES[:, 4], CODES[:, 2] = 0.0, CODES[:, 2] + 3.0
ATOMS = torch.randn(6, 12, generator=GENERATOR)
X = CODES @ ATOMS
LABELS = torch.arange(40) % 3
TABLE = LatentFeatures(X, CODES, ATOMS)
IMAGES = {"image_shape": (1, 3, 4)}


# --- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, IMAGES])
def test_numbers_of_each_latent_are_those_of_the_metrics(options):
    articles = latents(read(plots.feature_report(TABLE, labels=LABELS, **options)))
    counts, similar, together = metrics.supports(CODES), metrics.similar_atoms(ATOMS), metrics.co_firing(CODES)
    assert list(articles) == counts.density.argsort(descending=True, stable=True).tolist()
    for j, article in articles.items():
        assert float(article.attrs["data-density"]) == pytest.approx(counts.density[j].item())
        assert float(article.attrs["data-strength"]) == pytest.approx(TABLE.strength[j].item())
        share, num = article.one("dl").one("dd").text.split()[:2]
        assert number(share) == pytest.approx(100 * counts.density[j].item(), rel=5e-3)
        assert int(num) == int((CODES[:, j] != 0).sum())
        near, firing = (list(part.all("li")) for part in article.one("div", **{"class": "near"}).all("ul"))
        assert [item.one("a").attrs["href"] for item in near] == [f"#latent-{i}" for i in similar.latents[j].tolist()]
        assert [number(item.one("span").text) for item in near] == pytest.approx(similar.score[j].tolist(), abs=5.1e-3)
        scores = [score for score in together.score[j].tolist() if score > 0]
        assert len(firing) == (len(scores) or 1)
        if scores:
            assert [number(item.one("span").text) for item in firing] == pytest.approx(scores, abs=5.1e-3)
        else:
            assert firing[0].text == "none"
    assert {j: a.attrs["data-state"] for j, a in articles.items()}[4] == "dead"
    assert articles[2].attrs["data-state"] == "dense"


def test_the_head_has_the_distribution_of_supports():
    head = read(plots.feature_report(TABLE, facts={"Run": "mine"}, title="Bars")).one("header")
    counts, variety = metrics.supports(CODES), metrics.support_variety(CODES)
    assert terms(head.one("dl", **{"class": "facts"})) == {"Run": "mine"}
    assert terms(head.one("dl", **{"class": "numbers"})) == {
        "latents": "6",
        "data": "40",
        "mean L0": f"{counts.l0.double().mean():.2f}",
        "dead latents": "1",
        "dense latents": str(counts.dense),
        "always on": f"{counts.always_on:.1%}",
        "distinct supports": str(variety.num_supports),
        "Jaccard distance of supports": f"{variety.jaccard:.2f}",
    }
    l0, density = (figure.one("path").attrs["d"] for figure in head.all("figure"))
    heights = [int(h) for h in re.findall(r"v-(\d+)h", l0)]
    found = counts.l0.bincount()
    assert heights == [round(100 * n / found.max().item()) for n in found.tolist() if n]
    assert density.count("M") >= 1
    assert head.one("h1").text == "Bars"


def test_the_histogram_of_codes_is_of_those_that_are_on():
    article = latents(read(plots.feature_report(TABLE)))[0]
    on = CODES[:, 0][CODES[:, 0] != 0]
    chart = article.one("figure", **{"class": "codes"})
    assert [number(end.text) for end in chart.one("figcaption").all("span")] == pytest.approx(
        [on.min().item(), on.max().item()], rel=5e-3
    )
    bins = on.histc(24, on.min().item(), on.max().item())
    places = [int(i) // 10 for i in re.findall(r"M(\d+) 100", chart.one("path").attrs["d"])]
    assert places == bins.nonzero()[:, 0].tolist()
    assert "off in all data" in latents(read(plots.feature_report(TABLE)))[4].text


def test_labels_are_those_of_the_data_in_which_a_latent_is_on():
    articles = latents(read(plots.feature_report(TABLE, labels=LABELS, label_names=["cat", "dog", "a bird"])))
    for j, article in articles.items():
        on = LABELS[CODES[:, j] != 0]
        shown = {
            span.attrs["data-label"]: number(span.one("span").text)
            for span in article.all("span")
            if "data-label" in span.attrs
        }
        expected = {name: 100 * (on == i).double().mean().item() for i, name in enumerate(["cat", "dog", "a bird"])}
        assert shown == ({} if j == 4 else pytest.approx({k: v for k, v in expected.items() if v}, rel=5e-3))


def test_calibration_is_that_of_the_reliability():
    torch.manual_seed(0)
    vae = pv.build_vae((12,), 6, prior="spike-slab", likelihood="normal", network="dictionary", hidden=(8,))
    features = metrics.latent_features(vae, X, num_simulated=100)
    articles = latents(read(plots.feature_report(features)))
    table = features.reliability
    for j, article in articles.items():
        error, chance = (number(b.text) for b in article.one("figure", **{"class": "calibration"}).all("b"))
        assert (error, chance) == pytest.approx((table.error[j].item(), table.error_by_chance[j].item()), abs=5.1e-4)
        points = [(float(c.attrs["cx"]), 100 - float(c.attrs["cy"])) for c in article.all("circle")]
        some = table.counts[j] > 0
        expected = torch.stack([table.predicted[j, some], table.observed[j, some]], 1) * 100
        assert np.array(points) == pytest.approx(expected.double().numpy(), abs=0.06)
    assert "exact zeros" not in read(plots.feature_report(features)).one("details").text
    plain = metrics.latent_features(pv.build_vae((12,), 6, likelihood="normal", network="dictionary", hidden=(8,)), X)
    root = read(plots.feature_report(plain))
    assert plain.why_not in root.one("details").text
    assert not list(root.all("circle"))


# --- atoms and data -------------------------------------------------------------------------------------------------


def test_a_table_shows_the_largest_weights_and_the_strongest_rows_by_column_name():
    columns = [f"name {i}" for i in range(12)]
    articles = latents(read(plots.feature_report(TABLE, columns=columns, labels=LABELS)))
    for j in (0, 2):
        head, weights, *rows = articles[j].one("table").all("tr")
        order = ATOMS[j].abs().argsort(descending=True)[:5].tolist()
        assert [th.text for th in head.all("th", **{"class": "column"})] == [columns[i] for i in order]
        assert [number(td.text) for td in weights.all("td")] == pytest.approx(ATOMS[j, order].tolist(), rel=6e-3)
        strongest = CODES[:, j].abs().argsort(descending=True)[:8].tolist()
        assert [int(row.one("th").text) for row in rows] == strongest
        for n, row in zip(strongest, rows, strict=True):
            code, label, *values = (number(td.text) for td in row.all("td"))
            assert code == pytest.approx(CODES[n, j].item(), rel=6e-3)
            assert label == LABELS[n]
            assert values == pytest.approx(X[n, order].tolist(), rel=6e-3, abs=1e-6)
    assert len(list(articles[4].one("table").all("tr"))) == 2, "no datum is strong in a dead latent"


def test_a_missing_value_is_called_missing_and_has_a_colour_of_its_own():
    holes = X.clone()
    holes[:, :] = torch.nan
    features = LatentFeatures(holes.clone(), CODES, ATOMS)
    features.data[:, 0] = 1.0
    page = read(plots.feature_report(features))
    assert {td.text for row in list(latents(page)[0].one("table").all("tr"))[2:] for td in list(row.all("td"))[1:]} <= {
        "missing", "1.00",
    }  # fmt: skip
    shown = picture(list(latents(read(plots.feature_report(features, **IMAGES)))[0].all("img"))[1]).convert("RGB")
    assert shown.getpixel((1, 1)) == tuple(round(255 * c) for c in plots.pictures.MISSING)


def test_pictures_have_the_pixels_of_atoms_and_data():
    x = torch.rand(40, 12, generator=torch.Generator().manual_seed(1))
    for article in latents(read(plots.feature_report(LatentFeatures(x, CODES, ATOMS), **IMAGES))).values():
        j = int(article.attrs["data-number"])
        atom, *strongest = article.all("img")
        colours = np.asarray(picture(atom).convert("RGB")).astype(int)
        red_less_blue = colours[..., 0] - colours[..., 2]  # above 0 where x rises, by the sign of the weight
        weights = ATOMS[j].reshape(3, 4).numpy()
        large = np.abs(weights) > 0.05 * np.abs(weights).max()
        assert colours.shape == (3, 4, 3)
        assert (np.sign(red_less_blue) == np.sign(weights))[large].all()
        assert number(article.one("figcaption").text.strip("± ")) == pytest.approx(np.abs(weights).max(), rel=6e-3)
        rows = CODES[:, j].abs().argsort(descending=True)[:8].tolist() if j != 4 else []
        assert len(strongest) == bool(rows)
        if not rows:
            continue
        strip = picture(strongest[0])
        assert strip.size == (8 * 5, 3)
        grey = np.asarray(strip.convert("RGB"))[..., 0].reshape(3, 8, 5)[..., :4] / 255  # a column after each is a gap
        shown = x[rows].reshape(8, 3, 4).permute(1, 0, 2).numpy()
        assert np.abs((1 - grey) - shown).max() < 0.03
        transparent = np.asarray(strip.convert("RGBA"))[..., 3].reshape(3, 8, 5)
        assert (transparent[..., 4] == 0).all()
        assert (transparent[..., :4] == 255).all()
        captions = list(article.one("ol").all("li"))
        assert [caption.one("span").text for caption in captions] == [f"#{n}" for n in rows]


def test_colours_are_shown_as_they_are_and_no_change_is_grey():
    x, atoms = torch.rand(40, 12), torch.zeros(6, 12)
    x[0] = torch.tensor([1.0] * 4 + [0.0] * 4 + [1.0] * 4)
    features = LatentFeatures(x, torch.eye(6).repeat(7, 1)[:40] * torch.arange(40, 0, -1)[:, None], atoms)
    article = latents(read(plots.feature_report(features, (3, 2, 2))))[0]
    atom, strongest = (np.asarray(picture(image).convert("RGB")) for image in article.all("img"))
    assert np.abs(atom.astype(int) - 127.5).max() <= 0.5
    assert (strongest[:2, :2] == [255, 0, 255]).all()


def test_names_and_the_number_of_latents():
    root = read(
        plots.feature_report(TABLE, names=[f"bar {j}" for j in range(6)], num_latents=3, num_data=2, num_neighbors=1)
    )
    articles = latents(root)
    assert list(articles) == metrics.supports(CODES).density.argsort(descending=True, stable=True)[:3].tolist()
    assert "3 of 6 latents" in root.one("main").text
    for j, article in articles.items():
        assert article.one("h3").text.startswith(f"bar {j}")
        assert len(list(article.one("table").all("tr"))) == 4
        for link in article.one("div", **{"class": "near"}).all("a"):
            assert int(link.attrs["href"].removeprefix("#latent-")) in articles


def test_one_latent_and_one_datum_have_a_page():
    for codes in (torch.ones(1, 1), torch.zeros(1, 1)):
        root = read(plots.feature_report(LatentFeatures(torch.ones(1, 4), codes, torch.zeros(1, 4)), (1, 2, 2)))
        assert len(latents(root)) == 1


# --- a page that is safe, small and alone ---------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"columns": [EVIL] * 12}, IMAGES])
def test_texts_are_inert_whatever_they_contain(options):
    page = plots.feature_report(
        TABLE._replace(why_not=EVIL),
        title=EVIL,
        facts={EVIL: EVIL},
        labels=LABELS,
        label_names=[EVIL] * 3,
        names=[EVIL] * 6,
        **options,
    )
    root = read(page)
    plain = read(plots.feature_report(TABLE, facts={"a": "b"}, labels=LABELS, **options))
    assert [node.tag for node in root.all()] == [node.tag for node in plain.all()]
    assert len(list(root.all("script"))) == 1
    assert not [name for node in root.all() for name in node.attrs if name.startswith("on")]
    assert root.one("h1").text == root.one("title").text == " ".join(EVIL.split())
    assert next(root.all("article")).attrs["data-name"] == EVIL
    assert next(span for span in root.all("span") if "data-label" in span.attrs).attrs["data-label"] == EVIL


def test_only_the_script_of_the_page_may_run_and_nothing_is_loaded():
    root = read(plots.feature_report(TABLE, **IMAGES))
    policy = next(meta for meta in root.all("meta") if meta.attrs.get("http-equiv")).attrs["content"]
    (script,) = root.all("script")
    digest = base64.b64encode(hashlib.sha256("".join(script.children).encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    links = [value for node in root.all() for name, value in node.attrs.items() if name in ("src", "href", "action")]
    assert {link.partition(":")[0] if link.startswith("data:") else link[0] for link in links} == {"data", "#"}
    ids = [node.attrs["id"] for node in root.all() if "id" in node.attrs]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert "url(" not in root.one("style").text


def test_every_picture_has_a_text_and_every_control_a_name():
    root = read(plots.feature_report(TABLE, labels=LABELS, **IMAGES))
    assert root.one("html").attrs["lang"] == "en"
    assert all(image.attrs["alt"] for image in root.all("img"))
    assert all(svg.attrs.get("aria-label") or svg.attrs.get("aria-hidden") for svg in root.all("svg"))
    controls = [node for node in root.one("form").all() if node.tag in ("select", "input")]
    assert {node.parent.tag for node in controls} == {"label"}
    assert "hidden" in root.one("form").attrs, "without JavaScript they do nothing"


def test_a_page_is_small_and_noise_in_a_wide_model_does_not_change_that():
    generator = torch.Generator().manual_seed(0)

    def page(dim, side, num):
        codes = torch.rand(num, dim, generator=generator) * (torch.rand(num, dim, generator=generator) < 0.1)
        x, atoms = (torch.rand(rows, side * side, generator=generator) for rows in (num, dim))
        return plots.feature_report(LatentFeatures(x, codes, atoms), (1, side, side))

    assert len(page(64, 8, 180)) < 600_000
    wide = page(2048, 40, 100)
    assert len(wide) < 30_000_000
    assert "Pictures of 40 × 40 pixels are reduced to 20 × 20" in wide


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (TABLE._replace(data=X[:3]), {}, "data must have 40 rows, one for each code, got 3"),
        (TABLE._replace(atoms=ATOMS[:5]), {}, "atoms must have 6 rows, one for each latent, got 5"),
        (TABLE._replace(atoms=ATOMS[:, :5]), {}, "atoms must have 12 numbers in each row, as the data, got 5"),
        (TABLE._replace(codes=CODES / 0), {}, "z must be numbers, got NaN"),
        (TABLE, {"image_shape": (1, 5, 5)}, "image_shape must have 12 numbers in all, got 25"),
        (TABLE, {"columns": ["a"]}, "columns must have 12 names, one for each number of a datum, got 1"),
        (TABLE, {"names": ["a"]}, "names must have 6 names, one for each latent, got 1"),
        (TABLE, {"labels": LABELS[:2]}, "labels must have 40 numbers, one for each datum, got 2"),
        (TABLE, {"labels": LABELS, "label_names": ["a"]}, "label_names must have 3 names, got 1"),
        (TABLE, {"num_latents": 0}, "num_latents must be at least 1, got 0"),
        (TABLE, {"num_data": 0}, "num_data must be at least 1, got 0"),
        (TABLE, {"num_neighbors": 0}, "num_neighbors must be at least 1, got 0"),
    ],
)
def test_bad_input(features, options, message):
    with pytest.raises(ValueError, match=message):
        plots.feature_report(features, **options)
