"""The page of `aesampler report`: its figures against an independent count, its bytes and size, what it escapes."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import corpora
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup
from PIL import Image

from aesampler import manifest
from aesampler.cli import run
from aesampler.corpus import Corpus
from aesampler.head import CorpusHead
from aesampler.manifest import SampleRow, ShardHead, ShardReport
from aesampler.report import figures, gallery
from aesampler.report.page import report
from aesampler.report.tally import AREAS, tally
from aesampler.storage import Folder

PARTS = (
    corpora.Part(source="coco", shards=(40, 25), bare=9, failed=(7, 50), skipped=(3,)),
    corpora.Part(source="davis", split="validation", kind="clip", frames=3, shards=(14,), bare=2, skipped=(2, 5)),
)
NASTY = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus.open(corpora.write(tmp_path_factory.mktemp("report") / "tiny", PARTS))


@pytest.fixture(scope="module")
def page(corpus: Corpus) -> str:
    return report(corpus)


class Reader(HTMLParser):
    """What a browser makes of a page: elements with their attributes, and each element's text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == [], f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "input"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.elements if t == tag and all(a.get(k) == v for k, v in attributes.items())]


def parquet(corpus: Corpus) -> list[dict[str, object]]:
    """Every row of the manifest, read by pyarrow alone."""
    return [
        row
        for file in sorted(Path(corpus.folder.path).glob("manifest/*/*.parquet"))
        for row in pq.read_table(file).to_pylist()
    ]


def numbers(page: str, slug: str) -> list[list[str]]:
    """The cells of the table of a figure."""
    figure = re.search(rf'<figure id="{slug}">.*?</figure>', page, flags=re.DOTALL)
    assert figure, slug
    body = figure[0].split("<tbody>")[1].split("</tbody>")[0]
    return [
        [html.unescape(re.sub("<[^>]*>", "", cell)) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
        for row in re.findall(r"<tr>.*?</tr>", body)
    ]


def test_the_figures_are_those_of_an_independent_count(corpus: Corpus, page: str) -> None:
    rows = [row for row in parquet(corpus) if row["status"] == "ok"]
    assert len(rows) == len(corpus) == 74
    lengths = Counter((len(row["categories"]), row["anomalous"]) for row in rows)
    assert [r for r in numbers(page, "lengths") if r[1:] != ["0", "0"]] == [
        [str(n), str(lengths[n, True]), str(lengths[n, False])] for n in sorted({n for n, _ in lengths})
    ]
    exposed, irrelevant = Counter(), Counter()
    for row in rows:
        for name, genuine in zip(row["categories"], row["is_genuine"], strict=True):
            (exposed if genuine else irrelevant)[name] += 1
    assert {name: (e, i) for name, e, i in numbers(page, "exposed")} == {
        name: (str(count), str(irrelevant[name])) for name, count in exposed.items()
    }
    assert sorted(int(r[2]) for r in numbers(page, "irrelevant")) == sorted(irrelevant.values())
    names = exposed.keys() | irrelevant.keys()
    tail = numbers(page, "tail")
    assert [sum(int(r[column]) for r in tail) for column in (1, 2)] == [len(names)] * 2
    presence = Counter(
        (row["source"], known)
        for row in rows
        for genuine, known in zip(row["is_genuine"], row["presence"], strict=True)
        if not genuine
    )
    assert numbers(page, "presence") == [
        [source, *(str(presence[source, known]) for known in ("absent", "unknown", "present"))]
        for source in ("coco", "davis")
    ]
    areas = [np.mean(row["anomaly_area"][: row["valid_frames"]]) for row in rows if row["anomalous"]]
    wanted = [sum(low < area <= high for area in areas) for low, high in itertools.pairwise(AREAS)]
    assert [int(r[1]) for r in numbers(page, "areas")] == wanted
    assert sum(wanted) == sum(row["anomalous"] for row in rows)
    hatched = sum(any(row["ignored_area"]) for row in rows)
    assert f"{hatched} of all samples have ignored pixels" in page


def test_frame_labels_over_time(corpus: Corpus) -> None:
    clips = [row for row in parquet(corpus) if row["status"] == "ok" and row["kind"] == "clip"]
    frames = tally(corpus, 0, 9).clips["davis"]
    for place in range(3):
        told = Counter(
            "padding"
            if place >= row["valid_frames"]
            else "calm"
            if not row["anomalous"]
            else {0: "normal", 1: "anomalous", 255: "unknown"}[row["frame_labels"][place]]
            for row in clips
        )
        assert {name: int(getattr(frames, name)[place]) for name in frames.__slots__} == {
            name: told[name] for name in frames.__slots__
        }
    assert int(frames.padding.sum()) > 0


def test_what_was_left_out(page: str) -> None:
    section = page.split('id="lost"')[1].split("</section>")[0]
    assert re.findall(r"<td>(\d+)</td>", section) == ["2", "2", "1"]
    for word in (
        "the picture is truncated",
        "no irrelevant name may be drawn",
        "coco_train_000007",
        "failed",
        "skipped",
    ):
        assert word in section


def test_it_says_what_the_corpus_was_made_of(corpus: Corpus, page: str) -> None:
    text = html.unescape(page)
    for word in ("tiny", "A tiny corpus.", "CC-BY-4.0", corpus.head.recipe_sha256, "anomaly_probability: 0.8"):
        assert word in text
    told = Reader(page)
    assert {a["data-source"] for a in told.all("li") if "data-source" in a} == {"coco", "davis"}
    assert len([a for a in told.all("li") if "data-source" in a]) == 48
    assert len({a["id"] for _, a in told.elements if a.get("id")}) == len([1 for _, a in told.elements if a.get("id")])
    for svg in told.all("svg", role="img"):
        assert svg.get("aria-labelledby") or svg.get("aria-label")
    assert all("alt" in picture for picture in told.all("img"))


def test_the_same_corpus_gives_the_same_bytes_and_another_seed_other_samples(corpus: Corpus, page: str) -> None:
    assert report(Corpus.open(corpus.folder)) == page
    assert report(corpus, seed=1) != page


def test_nothing_can_be_fetched_and_nothing_can_run_but_its_own_script(page: str) -> None:
    told = Reader(page)
    (policy,) = (a["content"] for a in told.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag in ("script", "style"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    for _, attributes in told.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href", "srcset", "data", "poster", "action"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))


def test_names_and_paths_are_text(tmp_path: Path) -> None:
    folder = corpora.write(tmp_path / "nasty", (corpora.Part(source="coco", shards=(8,), bare=0),))

    def change(row: SampleRow, members: dict[str, bytes]) -> tuple[SampleRow, dict[str, bytes]]:
        body = json.loads(members["json"])
        names = [NASTY, '"><img src=x onerror=alert(2)>', "{{ 7 * 7 }}", "a]]>b", "\u202egnp", "x" * 300][
            : len(row.categories)
        ]
        body |= {"categories": names, "origin": NASTY}
        return replace(row, categories=tuple(names), origin=NASTY), members | {"json": json.dumps(body).encode()}

    corpora.rewrite(folder, change)
    page = report(Corpus.open(folder))
    told = Reader(page)
    assert len(told.all("script")) == 1
    assert NASTY not in page
    assert {a.get("data-name") for a in told.all("button")} >= {NASTY, '"><img src=x onerror=alert(2)>', "{{ 7 * 7 }}"}
    assert all(not name.startswith("on") for _, attributes in told.elements for name in attributes)
    assert any(tag == "button" and NASTY in text for tag, text in told.texts)


def decoded(uri: str) -> np.ndarray:
    head, _, data = uri.partition(",")
    assert head == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        return np.asarray(picture.convert("RGBA"))


def test_the_pictures_of_the_gallery(corpus: Corpus) -> None:
    place = next(
        n for n, row in enumerate(corpus.rows()) if row.anomalous and row.kind == "clip" and row.valid_frames == 3
    )
    sample = corpus[place]
    (card,) = gallery.cards(corpus, [place])
    assert (card.key, card.labels, card.shown) == (sample.key, card.labels, (corpora.WIDTH, corpora.HEIGHT))
    assert card.first == int(np.argmax(sample.masks.mean(axis=(1, 2))))
    for shot in card.shots:
        plain, layer = decoded(shot.picture), decoded(shot.layer)
        assert np.abs(plain[..., :3].astype(int) - sample.frames[shot.place]).mean() < 30
        seen = layer[..., 3] > 0
        assert seen[sample.masks[shot.place] | sample.ignored[shot.place]].all()
        inside = layer[sample.masks[shot.place]]
        assert (inside[:, 0] > 150).all()
        assert (inside[:, 1:3] < 100).all()


def test_the_heat_map_is_the_mean_of_the_masks(corpus: Corpus) -> None:
    grid, count = gallery.heat(corpus, tally(corpus, 0, 500).nearest, 0)
    masks = [s.masks[: s.valid_frames].mean(axis=0) for s in corpus if s.anomalous]
    assert count == len(masks)
    assert grid.shape == gallery.GRID[::-1]
    assert grid.mean() == pytest.approx(np.mean(masks), abs=1e-3)
    third = np.mean(masks, axis=0)[: corpora.HEIGHT // 3].mean()
    assert grid[: gallery.GRID[1] // 3].mean() == pytest.approx(third, abs=1e-3)


def test_a_larger_gallery_holds_the_smaller_and_every_source_is_seen(corpus: Corpus) -> None:
    nearest = tally(corpus, 5, 100).nearest
    small, large = (set(gallery.chosen(nearest, n, 5)) for n in (8, 30))
    assert small < large
    rows = list(corpus.rows())
    assert Counter((rows[n].source, rows[n].anomalous) for n in small) == dict.fromkeys(
        [(source, flag) for source in ("coco", "davis") for flag in (True, False)], 2
    )
    assert len(gallery.chosen(nearest, 1000, 5)) == len(corpus)
    assert gallery.chosen({}, 5, 0) == []


def large(root: Path, shards: int, each: int) -> Folder:
    """A corpus of a manifest alone: rows enough, and no tar."""
    random = np.random.default_rng(0)
    names = [f"name {place}" for place in range(400)]
    folder, reports = Folder.at(root), []
    recipe = corpora.document((corpora.Part(source="coco"),))
    for index in range(shards):
        rows = []
        for place in range(each):
            flag = bool(random.random() < 0.5)
            listed = tuple(names[n] for n in set(random.integers(0, 400, size=5).tolist()))
            rows.append(
                SampleRow(
                    key=f"coco_{index}_{place}",
                    source="coco",
                    split="train",
                    group=f"{index}:{place}",
                    kind="image",
                    frames=1,
                    valid_frames=1,
                    height=9,
                    width=9,
                    anomalous=flag,
                    categories=listed,
                    is_genuine=(flag, *[False] * (len(listed) - 1)),
                    presence=("absent",) * len(listed),
                    frame_labels=(int(flag),),
                    anomaly_area=(0.1 * flag,),
                    ignored_area=(0.0,),
                    size=1024,
                    shard=f"train/coco-{index:06d}.tar",
                    index=place,
                    offset=1024 * place,
                )
            )
        head = ShardHead(
            encoding="jpg", path=f"train/coco-{index:06d}.tar", samples=each, bytes=1024 * each, sha256="0"
        )
        path = f"manifest/train/coco-{index:06d}.parquet"
        folder.commit(path, lambda sink, rows=rows, head=head: manifest.write(rows, sink, head))  # type: ignore[misc]
        reports.append(ShardReport.read(folder, path))
    told = {"recipe": recipe, "recipe_sha256": "0", "tools": {}, "inputs": {}}
    folder.commit_bytes("corpus.json", CorpusHead.of(**told, reports=reports).to_json())  # type: ignore[arg-type]
    return folder


def test_a_large_corpus_gives_a_small_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aesampler.report.tally.AUDITED", 1000)
    monkeypatch.setattr("aesampler.report.gallery.LOOKED_AT", 0)
    folder = large(tmp_path / "large", 4, 2500)
    page = report(Corpus.open(folder), samples=0)
    assert "on 1,000 of 10,000 samples" in page
    assert len(page) < 200_000
    sums = tally(Corpus.open(folder), 0, 7)
    assert {key: pairs.shape for key, pairs in sums.nearest.items()} == {
        ("coco", flag): (7, 2) for flag in (False, True)
    }


@pytest.mark.long
def test_a_hundred_thousand_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aesampler.report.gallery.LOOKED_AT", 0)
    page = report(Corpus.open(large(tmp_path / "large", 100, 1000)), samples=0)
    assert "all 100,000 samples" in page
    assert len(page) < 200_000


def test_a_gallery_keeps_to_its_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = corpora.Part(source="davis", kind="clip", frames=20, shards=(6,), bare=0)
    corpus = Corpus.open(corpora.write(tmp_path / "clips", (part,)))
    full = gallery.cards(corpus, range(6))
    assert [len(card.shots) for card in full] == [gallery.FRAMES] * 6
    assert [shot.place for shot in full[0].shots][:1] + [shot.place for shot in full[0].shots][-1:] == [0, 19]
    assert len(full[0].labels) == 20
    monkeypatch.setattr(gallery, "BUDGET", 1)
    monkeypatch.setattr(gallery, "STEPS", ((400, 74), (16, 40)))
    assert {card.shown for card in gallery.cards(corpus, range(6))} == {(16, 12)}


def test_a_corpus_without_a_sample(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path / "none")
    row = SampleRow(key="coco_1", source="coco", split="train", group="coco:1", kind="image")
    path = "manifest/train/coco-000000.parquet"
    lost = [replace(row, status="failed", reason="the picture is truncated")]
    folder.commit(path, lambda sink: manifest.write(lost, sink, ShardHead(encoding="jpg")))
    recipe = corpora.document((corpora.Part(source="coco"),))
    head = CorpusHead.of(
        recipe=recipe, recipe_sha256="0", tools={}, inputs={}, reports=[ShardReport.read(folder, path)]
    )
    folder.commit_bytes("corpus.json", head.to_json())
    page = report(Corpus.open(folder))
    assert "There are too few samples" in page
    assert "0 of 0" in page
    Reader(page)


def test_the_command(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = corpus.folder.list()
    monkeypatch.chdir(tmp_path)
    assert run(["report", str(corpus.folder.path), "--samples", "4"]) == 0
    assert "tiny-report.html" in capsys.readouterr().out
    assert run(["report", str(corpus.folder.path), "--samples", "4", "--out", "deep/er.html", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bytes"] == (tmp_path / "deep/er.html").stat().st_size
    assert (tmp_path / "deep/er.html").read_bytes() == (tmp_path / "tiny-report.html").read_bytes()
    assert run(["report", str(corpus.folder.path), "--out", f"{corpus.folder.path}/r.html"]) == 2
    assert "lies in the corpus" in capsys.readouterr().err
    assert run(["report", str(tmp_path / "nowhere")]) == 2
    assert corpus.folder.list() == before


@given(st.integers(1, 10**9))
def test_ticks(most: int) -> None:
    told = figures.ticks(most)
    assert told[0] == 0
    assert told[-1] <= most
    assert 2 <= len(told) <= 6
    assert len(set(np.diff(told))) <= 1


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (950, "950"), (1234, "1.23k"), (99_950, "100k"), (5_600_000, "5.6M")]
)
def test_short(count: int, text: str) -> None:
    assert figures.short(count) == text


@given(st.text(max_size=40), st.integers(3, 30))
def test_clipped(text: str, letters: int) -> None:
    told = figures.clipped(text, letters)
    assert len(told) <= max(letters, 0)
    assert told == text or (told[0] == text[0] and told[-1] == text[-1])


def tags(markup: Markup) -> Iterator[str]:
    return iter(re.findall(r"<(\w+)", markup))


def test_a_plot_escapes_what_it_is_told() -> None:
    words = figures.Words(slug="a", title=NASTY, text=NASTY)
    series = [figures.Series(name=NASTY, tone="anomalous", values=[3, 0])]
    for made in (
        figures.bars(words, NASTY, [NASTY, "b"], series),
        figures.columns(words, NASTY, [NASTY, "b"], series),
        figures.columns(words, NASTY, [], []),
    ):
        assert "script" not in set(tags(made))
        Reader(made)
