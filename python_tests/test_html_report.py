"""The page of `nri-fast report`: what it says, and what it does in a real browser without a network."""

import dataclasses
import html.parser
import json
import re

import browser
import numpy as np
import pytest
import torch

import nri_fast
from nri_fast import cli
from nri_fast.origin import Origin
from nri_fast.settings import PRESETS

SECTIONS = ["answer", "graphs", "sureness", "forecasts", "laws", "curves", "training-facts"]
EVIL = "</script><b>a&b"
in_a_browser = pytest.mark.skipif(not browser.there_is_one(), reason=browser.REASON)


def trained(data, **changes):
    settings = dataclasses.replace(PRESETS["springs"], **{"steps": 6, "polish_steps": 2, "batch": 4} | changes)
    return nri_fast.train(data, settings=settings, seed=1, progress=False)


def random_walk(features, systems=5, steps=12, entities=3, sizes=None):
    random = torch.Generator().manual_seed(3)
    states = torch.randn(systems, steps, entities, len(features), generator=random, dtype=torch.float64).cumsum(1)
    if sizes is not None:
        states *= (torch.arange(entities) < sizes[:, None])[:, None, :, None]
    names = np.array([[EVIL, *map(str, range(1, entities))]] * systems)
    if sizes is not None:
        names[np.arange(entities) >= sizes.numpy()[:, None]] = ""
    origin = Origin(torch.arange(systems), tuple(f"day {s}" for s in range(systems)), torch.zeros(systems).long(),
                    torch.ones(systems).double(), names)  # fmt: skip
    return nri_fast.TrajectoryData(states, None, features, "walk", "train", None, sizes, origin)


def some_absent(data):
    """The first entity comes late, the second is away for a while, and the last recording ends early."""
    present = data.there.clone()
    present[:, :3, 0] = False
    present[:, 5:7, 1] = False
    present[-1, 8:] = False
    return dataclasses.replace(data, present=present)


def cases():
    springs = nri_fast.simulate("springs", 14, entities=4, steps=23, seed=1)
    yield "labels", springs, {}
    yield "entity types", nri_fast.simulate("springs_mass", 4, entities=3, steps=23), {"node_types": 2, "silent": True}
    yield "ragged", random_walk(("x", "y"), sizes=torch.tensor([3, 1, 2, 3, 2])), {"edge_types": 3}
    yield "space", random_walk(("x", "y", "z", "vx", "vy", "vz"), entities=7), {}
    yield "no positions", random_walk(("volt", "ampere")), {"judged": ("ampere",)}
    yield "partial", some_absent(random_walk(("x", "y"))), {}
    yield "two steps", random_walk(("x", "y"), steps=2), {"polish_steps": 0}
    yield "alone", random_walk(("x", "y"), entities=1), {}


@pytest.fixture(scope="module", params=cases(), ids=lambda case: case[0])
def written(request):
    name, data, changes = request.param
    run = trained(data, **changes)
    found = nri_fast.infer(run, data)
    return name, data, run, found, nri_fast.html_report(run, data, found, run_name=f"my <{name}>")


class Reader(html.parser.HTMLParser):
    """Collects elements, and what is said where nothing is shown."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def graph_data(page):
    return json.loads(re.search(r'<script type="application/json" id="graph-data">(.*?)</script>', page)[1])


def test_every_section_is_there_or_says_why_not(written):
    name, _, _, _, page = written
    elements = Reader(page).elements
    assert [a["id"] for tag, a in elements if tag == "section"] == SECTIONS
    left_out = re.findall(r'<section id="([\w-]+)".*?</section>', re.sub(r"(?s)<svg.*?</svg>", "", page), re.DOTALL)
    left_out = [s for s in left_out if f'<section id="{s}"' in page and _is_left_out(page, s)]
    assert left_out == (["answer", "graphs", "sureness", "laws"] if name == "alone" else [])


def _is_left_out(page, section):
    body = page[page.index(f'<section id="{section}"') :]
    return 'class="left-out"' in body[: body.index("</section>")]


def test_the_page_needs_nothing_else(written):
    page = written[-1]
    for tag, attributes in Reader(page).elements:
        for key in ("src", "href", "xlink:href", "action", "data"):
            assert re.match(r"#|data:", attributes.get(key) or "#"), (tag, attributes)
        assert tag not in ("link", "object", "embed", "iframe", "base")
    assert "url(http" not in page
    assert "@import" not in page
    assert len(page.encode()) < 5e6


def test_ids_are_unique_and_pictures_have_words(written):
    elements = Reader(written[-1]).elements
    ids = [a["id"] for _, a in elements if "id" in a]
    assert len(ids) == len(set(ids))
    pictures = [a for tag, a in elements if tag == "svg"]
    assert pictures
    assert all(len(a["aria-label"]) > 20 for a in pictures)
    referred = [a["href"][1:] for _, a in elements if a.get("href", "").startswith("#")]
    assert set(referred) <= set(ids)


def test_names_are_text_and_nothing_else(written):
    name, _, _, _, page = written
    assert f"my &lt;{name}&gt;" in page
    assert "<b>a&b" not in page
    assert f"my <{name}>" not in page


def test_the_page_is_the_same_again(written):
    name, data, run, found, page = written
    if name != "ragged":
        pytest.skip("one page is enough")
    assert nri_fast.html_report(run, data, found, run_name=f"my <{name}>") == page


def test_the_viewer_gets_what_was_found(written):
    name, data, _, found, page = written
    if name == "alone":
        pytest.skip("no edges")
    shown = graph_data(page)
    assert len(shown["systems"]) == min(12, data.systems)
    for system in shown["systems"]:
        s = int(re.match(r"system (\d+)", system["name"])[1])
        n = len(system["entities"])
        assert n == (data.entities if data.sizes is None else data.sizes[s])
        if name == "entity types":
            assert system["entities"] == [f"{i} (type {found.node_types[s, i]})" for i in range(n)]
        edges = system["edges"]
        assert sorted(zip(edges["from"], edges["to"], strict=True)) == [
            (i, j) for i in range(n) for j in range(n) if i != j
        ]
        assert edges["type"] == [int(found.adjacency[s, i, j]) for i, j in zip(edges["from"], edges["to"], strict=True)]
        recorded = data.states[s, :, :n].permute(2, 1, 0).numpy()[: len(shown["features"])]
        recorded[:, ~data.there[s, :, :n].numpy().T] = np.nan
        shown_states = np.array(system["states"], dtype=np.float64)  # None becomes NaN
        np.testing.assert_allclose(shown_states, recorded, atol=1e-3 * np.nanmax(np.abs(recorded)))
        if data.edges is not None:
            wrong = nri_fast.evaluate(written[2], data, found)["relabelling"]
            for i, j, kind, cross in zip(edges["from"], edges["to"], edges["type"], edges["wrong"], strict=True):
                assert cross == (wrong[kind] != int(data.edges[s, i, j]))


def test_figures_against_labels_are_those_of_evaluate(written):
    name, data, run, found, page = written
    text = Reader(page).text
    if data.edges is None:
        assert name == "alone" or "No labels of edges" in text
        return
    figures = nri_fast.evaluate(run, data, found)
    assert f"{100 * figures['edge_accuracy']:.2f} %" in text
    assert f"{figures['edge_auroc']:.4f}" in text
    assert f"{figures['edge_ece']:.4f}" in text


def test_large_systems_stay_small_pages():
    data = random_walk(("x", "y"), systems=1, steps=220, entities=46)
    run = trained(data, steps=1, polish_steps=0, message=4, edge_hidden=(4,), node_hidden=(4,), block=4)
    page = nri_fast.html_report(run, data)
    assert len(page.encode()) < 2e6
    shown = graph_data(page)["systems"][0]
    assert len(shown["edges"]["from"]) == 2000
    assert shown["edgesLeftOut"] == 46 * 45 - 2000
    assert len(shown["moments"]) <= 200
    least = nri_fast.infer(run, data).probability[0].amax(-1).flatten().sort(descending=True).values[1999]
    assert min(shown["edges"]["p"]) >= float(least) - 1e-3


# In a browser -------------------------------------------------------------------------------------------------------

VISIT = """
const at = (id) => document.getElementById(id);
const box = (e) => { const b = e.getBoundingClientRect(); return [b.width, b.height]; };
const edges = () => [...at("stage").querySelectorAll("g[data-edge]")].map((g) => Number(g.dataset.edge));
const change = (e, value, kind) => { e.value = value; e.dispatchEvent(new window.Event(kind)); };
const nodes = () => [...at("stage").querySelectorAll("circle")].map((c) => c.getAttribute("cx"));
const seen = {
  sections: [...document.querySelectorAll("section")].map((s) => [s.id, ...box(s), s.innerText.length]),
  pictures: [...document.querySelectorAll("svg")].filter((s) => !s.hasAttribute("hidden")).map(box),
  across: document.documentElement.scrollWidth,
  title: document.title,
};
if (!at("viewer")) return seen;
seen.first = [at("stage").getAttribute("aria-label"), edges().length, nodes()];
change(at("system"), at("system").options.length - 1, "change");
seen.last = [at("stage").getAttribute("aria-label"), edges().length];
at("next").click();
seen.around = at("stage").getAttribute("aria-label");
change(at("step"), at("step").max, "input");
seen.moved = [at("moment").textContent, nodes()];
at("edges").open = true;
await new Promise((done) => window.setTimeout(done, 50));
seen.rows = at("edges").querySelectorAll("tbody tr").length;
change(at("least"), 70, "input");
seen.surer = edges();
change(at("least"), 0, "input");
for (const box of at("types").querySelectorAll("input")) if (box.checked) box.click();
seen.none = edges().length;
for (const box of at("types").querySelectorAll("input")) box.click();
seen.all = edges().length;
at("play").click();
seen.playing = at("play").textContent;
at("play").click();
seen.stopped = at("play").textContent;
return seen;
"""


@in_a_browser
@pytest.mark.parametrize("width", [1000, 360])
def test_the_page_works_in_a_browser_without_network(written, width, tmp_path):
    name, _, _, _, page = written
    seen, wrong = browser.look(page, VISIT, tmp_path, width)
    assert wrong == []
    assert [s[0] for s in seen["sections"]] == SECTIONS
    for section in seen["sections"]:
        assert min(section[1:]) > 20, section
    assert all(min(size) > 50 for size in seen["pictures"])
    assert seen["across"] <= width
    assert seen["title"].startswith(f"my <{name}>")
    if name == "alone":
        return
    data = graph_data(page)
    first, last = data["systems"][0], data["systems"][-1]
    shown = {k for k, kind in enumerate(data["types"]) if kind["shown"]}

    def edges(system, least=0.0, kinds=shown):
        both = enumerate(zip(system["edges"]["type"], system["edges"]["p"], strict=True))
        return [k for k, (kind, p) in both if kind in kinds and p >= least and drawn(system, k)]

    def drawn(system, k):
        """Whether sender and receiver are there at the first moment."""
        ends = system["edges"]["from"][k], system["edges"]["to"][k]
        return all(system["states"][0][end][0] is not None for end in ends)

    assert seen["first"][:2] == [_label(first), len(edges(first))]
    assert seen["last"] == [_label(last), len(edges(last))]
    assert seen["around"] == _label(first)
    assert seen["moved"][0] == str(first["moments"][-1])
    assert (seen["moved"][1] != seen["first"][2]) == data["plane"]
    assert seen["rows"] == sum(kind in shown for kind in first["edges"]["type"])
    if name == "partial":
        there = [row[-1] is not None for row in first["states"][0]]
        assert len(seen["moved"][1]) == sum(there)
        return
    assert seen["surer"] == edges(first, 0.7)
    assert (seen["none"], seen["all"]) == (0, len(first["edges"]["from"]))
    assert (seen["playing"], seen["stopped"]) == ("Stop", "Play")


def _label(system):
    return f"Trajectories of {system['name']}: {len(system['entities'])} entities, {len(system['edges']['from'])} edges"


@in_a_browser
@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("<script>undefined_function()</script>", "undefined_function"),
        ('<img src="http://example.invalid/x.png">', "example.invalid"),
        ('<meta http-equiv="Content-Security-Policy" content="img-src data:"><img src="http://example.invalid/">',
         "example.invalid"),
    ],
)  # fmt: skip
def test_the_browser_notices_what_goes_wrong(body, complaint, tmp_path):
    page = f"<!DOCTYPE html><html><head></head><body>{body}</body></html>"
    wait = "await new Promise((done) => window.setTimeout(done, 500)); return 1;"
    _, wrong = browser.look(page, wait, tmp_path)
    assert complaint in " ".join(wrong)


# The command --------------------------------------------------------------------------------------------------------


def call(*arguments):
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path):
    data = random_walk(("x", "y"), sizes=torch.tensor([3, 2, 2, 3, 2]))
    trained_run = trained(data)
    trained_run.save(tmp_path / "run")
    nri_fast.save_trajectories(data, tmp_path / "data.npz")
    return tmp_path


def test_the_command_writes_page_and_graphs(folder, capsys):
    arguments = [folder / "run", folder / "data.npz", "--split", "train", "--out"]
    page, graphs = folder / "new" / "page.html", folder / "graphs.csv"
    assert call("report", *arguments, page, "--graphs", graphs) == 0
    assert str(page) in capsys.readouterr().out
    assert call("infer", *arguments, folder / "again.csv") == 0
    assert graphs.read_text() == (folder / "again.csv").read_text()
    assert "run: who acts on whom in data" in page.read_text(encoding="utf-8")
    assert sorted(file.name for file in page.parent.iterdir()) == ["page.html"]
    capsys.readouterr()
    for more in ([page], [folder / "page.txt"], [folder / "b.html", "--graphs", graphs]):
        assert call("report", *arguments, *more) == 2
        assert re.search(r"already there|ends in \.html", capsys.readouterr().err)
    assert not (folder / "b.html").exists()
