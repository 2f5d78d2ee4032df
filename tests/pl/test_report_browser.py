"""The report page in a headless browser: wheel, mouse, fingers and keys, and what they show."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from sthggep import pl
from sthggep._keys import UNITS

PICTURE, OBSERVED, PREDICTED = (f"canvas[data-kind={kind}]" for kind in ("picture", "observed", "predicted"))
PHONE = (390, 844)
WIDTH, HEIGHT, PITCH = 1600, 1200, 100
MARKS = (300, 1300)  # x of two black squares, 30 pixels wide
MPP = 2.0
SHIFT = 8


def tissue() -> np.ndarray:
    """Purple stripes of a pixel, which the overview shows as one color, and two black squares to measure by."""
    image = np.full((HEIGHT, WIDTH, 3), (200, 90, 160), dtype=np.uint8)
    image[:, np.arange(WIDTH) % 2 == 0] = (130, 60, 130)
    for x in MARKS:
        image[585:615, x - 15 : x + 15] = 0
    return image


def make_slide(name: str = "S", n_genes: int = 12, seed: int = 0) -> AnnData:
    """Spots on a square grid, with counts, and a prediction by two programs."""
    rng = np.random.default_rng(seed)
    x, y = (part.ravel() for part in np.meshgrid(np.arange(100, WIDTH, PITCH), np.arange(100, HEIGHT, PITCH)))
    programs = np.column_stack([x / WIDTH, y / HEIGHT])
    counts = rng.poisson(20 * programs @ rng.random((2, n_genes)) + 1).astype(np.float32)
    names = [f"GENE{i}" for i in range(n_genes)]
    adata = AnnData(
        counts, obs=pd.DataFrame(index=[f"{a}x{b}" for a, b in zip(x, y, strict=True)]), var=pd.DataFrame(index=names)
    )
    adata.obsm["spatial"] = np.column_stack([x, y]).astype(float)
    adata.uns["spatial"] = {
        name: {
            "images": {"hires": tissue()},
            "scalefactors": {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": 50.0},
        }
    }
    adata.obsm["hggep"] = (1 + 2 * programs @ rng.random((2, n_genes))).astype(np.float32)
    adata.obsm["hggep_lower"], adata.obsm["hggep_upper"] = adata.obsm["hggep"] - 0.5, adata.obsm["hggep"] + 0.75
    adata.uns["hggep"] = {
        "tool": "sthggep",
        "genes": np.array(names, dtype=object),
        "units": UNITS,
        "model": "hggep-test",
        "held_out_pearson": np.linspace(0.1, 0.7, n_genes),
        "interval": {"level": 0.9, "of": "measurement"},
        "params": {"learned_from": np.array([], dtype=object)},
    }
    return adata


def with_verdicts(adata: AnnData) -> AnnData:
    """The slide with a record of held-out tissue: every second gene was predicted there."""
    from sthggep._table._evidence import REGION_LEVELS, REGION_SPOTS, SCALES_UM, Evidence

    n = len(adata.uns["hggep"]["genes"])
    ones, scales, none = np.ones(n, np.float32), np.ones((len(SCALES_UM), n), np.float32), np.empty((0, n), np.float32)
    z = np.tile(np.where(np.arange(n) % 2, 0, 9).astype(np.float32), (2, 1))
    spread, scores = np.ones((len(REGION_SPOTS), n), np.float32), np.ones(len(REGION_LEVELS), np.float32)
    evidence = Evidence(z / 10, z, none, none, ones, ones, scales, scales, spread, scores, ones, none).to_arrays()
    adata.uns["hggep"] |= {"evidence": evidence, "gene_sets": adata.uns["hggep"]["genes"], "set_evidence": evidence}
    adata.obs["hggep_novelty"] = np.where(np.arange(adata.n_obs) == 5, 0.99, 0.3)
    return adata


@pytest.fixture(scope="module")
def slide() -> AnnData:
    return with_verdicts(make_slide())


@pytest.fixture(scope="module")
def path(slide, tmp_path_factory):
    return pl.report(slide, tmp_path_factory.mktemp("page") / "page.html", mpp=MPP)


def contrast_of(pixels: np.ndarray) -> float:
    """Spread along the rows, where the stripes are, away from the black squares."""
    return float(pixels[20:60].astype(float).mean(axis=(0, 2)).std())


def squares(pixels: np.ndarray) -> np.ndarray:
    """Columns of the middles of the black squares, which lie in the middle of the rows, away from the scale bar."""
    rows = len(pixels) // 4
    dark = np.flatnonzero((pixels[rows:-rows].max(axis=2) < 45).sum(axis=0) > 3)
    return np.array([part.mean() for part in np.split(dark, np.flatnonzero(np.diff(dark) > 8) + 1)])


def scale_bar(tab, number: int = 0) -> tuple[float, float]:
    """Length of the scale bar in microns, and in pixels of the screen."""
    words, pixels = tab.see(
        f"(() => {{ const bar = document.querySelectorAll('.scalebar')[{number}];"
        " return [bar.firstChild.textContent, bar.lastChild.getBoundingClientRect().width]; })()"
    )
    number_of, unit = words.split(" ")
    return float(number_of) * {"µm": 1, "mm": 1000}[unit], pixels


def values(readout: str) -> list[float]:
    return [float(word) for word in re.findall(r"-?\d+\.\d\d", readout.replace("−", "-"))]


def expected(slide: AnnData, spot: str, gene: str) -> list[float]:
    """Observed and predicted value of a spot, and the ends of its interval."""
    i, j = slide.obs_names.get_loc(spot), slide.var_names.get_loc(gene)
    counts = slide.X[i]
    predicted = slide.obsm["hggep"][i, j]
    return [np.log10(1 + 1e4 * counts[j] / counts.sum()), predicted, predicted - 0.5, predicted + 0.75]


# ---------------------------------------------------------------- zoom and move


def test_the_wheel_shows_finer_pixels_in_all_maps(path, open_page):
    tab = open_page(path)
    before = [tab.pixels(each) for each in (PICTURE, PREDICTED)]
    assert contrast_of(before[0]) < 3
    for _ in range(6):
        tab.wheel(PREDICTED, -300)
    assert contrast_of(tab.pixels(PICTURE)) > 8
    assert tab.see(f"document.querySelector('{PICTURE}').dataset.level") == "0"
    assert len({scale_bar(tab, number) for number in range(3)}) == 1
    tab.click("#whole")
    np.testing.assert_array_equal(tab.pixels(PICTURE), before[0])


def test_the_wheel_zooms_around_the_pointer(path, open_page):
    """The black square under the pointer stays there, the other one moves away, out of the picture."""
    tab = open_page(path)
    left, _ = squares(tab.pixels(PICTURE))
    place = place_of(tab, PICTURE, MARKS[0], 600)
    for _ in range(2):
        tab.mouse("mouseWheel", *place, deltaX=0, deltaY=-300)
    assert tab.see("VIEW.zoom") == pytest.approx(np.exp(1.2))
    assert squares(tab.pixels(PICTURE)) == pytest.approx([left], abs=3)


def test_a_double_click_zooms_in(path, open_page):
    tab = open_page(path)
    left, _ = squares(tab.pixels(PICTURE))
    place = place_of(tab, PREDICTED, MARKS[0], 600)
    for count in (1, 2):
        for kind in ("mousePressed", "mouseReleased"):
            tab.mouse(kind, *place, button="left", buttons=1, clickCount=count)
    assert tab.see("VIEW.zoom") == pytest.approx(2)
    assert squares(tab.pixels(PICTURE)) == pytest.approx([left], abs=3)


def test_zoom_ends_at_the_whole_section_and_at_some_spots(path, open_page):
    tab = open_page(path)
    width, height, pixels = tab.see("(s => [s.width, s.height, s.tiles.width])(DATA.sections[0])")
    for _ in range(15):
        tab.wheel(PICTURE, -1000)
    # Ten spots of 50 pixels side by side, or a pixel of the tissue as four of the screen
    assert tab.see("VIEW.zoom") == pytest.approx(max(8, pixels / 100, max(width, height) / (20 * 25)))
    # There, the wheel moves nothing, wherever the pointer is
    there = tab.see("[VIEW.x, VIEW.y]")
    x, y = tab.middle(PICTURE)
    tab.mouse("mouseWheel", x + 60, y + 40, deltaX=0, deltaY=-300)
    assert tab.see("[VIEW.x, VIEW.y]") == pytest.approx(there)
    for _ in range(25):
        tab.see("zoomAt(VIEW.panels[0], 0.5)")
    assert tab.see("VIEW.zoom") == 1
    middle = tab.see("[VIEW.x - DATA.sections[0].left, VIEW.y - DATA.sections[0].top]")
    assert middle == pytest.approx([width / 2, height / 2])


def test_tiles_are_as_fine_as_the_screen_can_show(path, open_page):
    tab = open_page(path)
    seen = set()
    for _ in range(8):
        tab.settle()
        level = int(tab.see(f"document.querySelector('{PICTURE}').dataset.level"))
        width, last = tab.see(
            "[DATA.sections[0].width / DATA.sections[0].tiles.width, levels(DATA.sections[0].tiles) - 1]"
        )
        pixel = tab.see("scaleOf(VIEW.panels[0])") * width * 2**level  # of the screen, for one of the tile
        assert pixel <= 2**0.25 + 1e-6 or level == 0
        assert pixel > 2**-0.75 or level == last
        seen.add(level)
        tab.see("zoomAt(VIEW.panels[0], 1.5)")
    assert len(seen) > 1


def test_the_wheel_scrolls_the_page_where_the_section_is_whole(path, open_page):
    tab = open_page(path, (1400, 500))
    place = tab.middle(PICTURE)
    top = tab.see("scrollY")
    tab.mouse("mouseWheel", *place, deltaX=0, deltaY=-300)
    assert tab.see("scrollY") == top
    tab.click("#whole")
    place, top = tab.middle(PICTURE), tab.see("scrollY")
    tab.mouse("mouseWheel", *place, deltaX=0, deltaY=300)
    tab.wait(f"scrollY > {top}")


def test_the_scale_bar_is_true_at_each_zoom(path, open_page):
    tab, seen = open_page(path), []
    for _ in range(2):
        microns, pixels = scale_bar(tab)
        left, right = squares(tab.pixels(PICTURE))
        # Tissue stands where the coordinates of the spots say
        for column, x in zip((left, right), MARKS, strict=True):
            assert tab.see(f"toSlide(VIEW.panels[0], {column + 0.5}, 0)[0]") == pytest.approx(x, abs=4)
        assert microns / pixels == pytest.approx(MPP * (MARKS[1] - MARKS[0]) / (right - left), rel=0.02)
        seen.append(microns)
        tab.click("#in")
        tab.click("#out")
        tab.see("zoomAt(VIEW.panels[0], 1.22)")
        tab.settle()
    for _ in range(5):
        tab.click("#in")
    assert scale_bar(tab)[0] < seen[0] / 3
    assert 20 < scale_bar(tab)[1] < 0.35 * tab.see(f"document.querySelector('{PICTURE}').clientWidth")


def test_no_scale_bar_without_microns(slide, open_page, tmp_path):
    tab = open_page(pl.report(slide, tmp_path / "page.html"))
    assert tab.see("[...document.querySelectorAll('.scalebar')].every(bar => bar.hidden)")


def test_dragging_moves_the_tissue_with_the_pointer(path, open_page):
    tab = open_page(path)
    for _ in range(3):
        tab.click("#in")
    tab.drag(PICTURE, 150, 0)
    for _ in range(3):  # to the left border, beyond which it does not go
        tab.drag(PREDICTED, 200, 0)
    (before,) = squares(tab.pixels(PICTURE))
    tab.drag(PREDICTED, -60, 0)
    (after,) = squares(tab.pixels(PICTURE))
    assert before - after == pytest.approx(60, abs=2)


def test_two_fingers_zoom_and_one_moves(path, open_page):
    tab = open_page(path, PHONE, touch=True)
    x, y = tab.middle(PICTURE)
    assert tab.see(f"document.querySelector('{PICTURE}').style.touchAction") == "pan-y"
    tab.touch("touchStart", (x - 30, y), (x + 30, y))
    for apart in (50, 70, 90):
        tab.touch("touchMove", (x - apart, y), (x + apart, y))
    tab.touch("touchEnd")
    assert tab.see("VIEW.zoom") == pytest.approx(3, rel=0.05)
    assert tab.see(f"document.querySelector('{PICTURE}').style.touchAction") == "none"
    middle = tab.see("VIEW.x")
    tab.touch("touchStart", (x, y))
    tab.touch("touchMove", (x - 20, y))
    tab.touch("touchMove", (x - 40, y))
    tab.touch("touchEnd")
    assert tab.see("VIEW.x - " + str(middle)) == pytest.approx(40 / tab.see("scaleOf(VIEW.panels[0])"), rel=0.3)


def test_keys_zoom_move_and_read(slide, path, open_page):
    tab = open_page(path)
    tab.click("#whole")
    tab.press("Tab")
    assert tab.see("document.activeElement.dataset.kind") == "picture"
    assert "Spot 800x600" in tab.text("#readout")
    for _ in range(3):
        tab.press("+")
    assert tab.see("VIEW.zoom") == pytest.approx(1.5**3)
    before = tab.see("[VIEW.x, VIEW.y]")
    tab.press("ArrowRight")
    tab.press("ArrowDown")
    after = tab.see("[VIEW.x, VIEW.y]")
    assert after[0] > before[0]
    assert after[1] > before[1]
    spot = re.search(r"Spot (\d+)x(\d+)", tab.text("#readout"))
    tab.press("ArrowRight", SHIFT)
    tab.press("ArrowUp", SHIFT)
    assert f"Spot {int(spot[1]) + PITCH}x{int(spot[2]) - PITCH} " in tab.text("#readout")
    tab.press("-")
    assert tab.see("VIEW.zoom") == pytest.approx(1.5**2)
    tab.press("0")
    assert tab.see("VIEW.zoom") == 1
    tab.press("Escape")
    assert tab.text("#readout").startswith("Point at a spot")


# ---------------------------------------------------------------- values


def place_of(tab, selector: str, x: float, y: float) -> tuple[float, float]:
    """The place on the screen of a place of the slide, where the whole section is shown."""
    middle_x, middle_y = tab.middle(selector)
    k = tab.see(f"document.querySelector('{selector}').clientWidth / DATA.sections[0].width")
    left, top, width, height = tab.see("['left', 'top', 'width', 'height'].map(name => DATA.sections[0][name])")
    return middle_x + k * (x - left - width / 2), middle_y + k * (y - top - height / 2)


def test_values_and_intervals_under_the_pointer(slide, path, open_page):
    tab = open_page(path)
    gene = tab.text("#notes h3")
    assert tab.see("DATA.sections[0].predicted.kind + DATA.sections[0].observed.kind") == "factorscounts"
    tab.mouse("mouseMoved", *place_of(tab, OBSERVED, 300, 400))
    assert f"Spot 300x400 · {gene}: observed" in tab.text("#readout")
    assert "90 % interval of a measurement" in tab.text("#readout")
    np.testing.assert_allclose(values(tab.text("#readout")), expected(slide, "300x400", gene), atol=0.011)
    tab.mouse("mouseMoved", *place_of(tab, PREDICTED, 350, 450))  # between spots
    assert tab.text("#readout").startswith("Point at a spot")
    tab.mouse("mouseMoved", *place_of(tab, PICTURE, 700, 100))
    assert "unlike" not in tab.text("#readout")
    tab.mouse("mouseMoved", *place_of(tab, PICTURE, 600, 100))
    assert "its image is unlike the training tissue" in tab.text("#readout")
    tab.mouse("mouseMoved", 5, 5)
    assert tab.text("#readout").startswith("Point at a spot")


def test_values_of_a_tapped_spot(slide, path, open_page):
    tab = open_page(path, PHONE, touch=True)
    x, y = place_of(tab, PREDICTED, 500, 800)
    tab.touch("touchStart", (x + 2, y))
    tab.touch("touchEnd")
    assert "Spot 500x800" in tab.text("#readout")
    np.testing.assert_allclose(
        values(tab.text("#readout")), expected(slide, "500x800", tab.text("#notes h3")), atol=0.011
    )
    box = tab.see(
        "(() => { const b = document.getElementById('readout').getBoundingClientRect(); return [b.top, b.bottom]; })()"
    )
    assert box[0] > 0
    assert box[1] <= PHONE[1]


def test_other_values_than_counts_and_factors(slide, open_page, tmp_path):
    other = slide.copy()
    other.obsm["hggep"] = np.random.default_rng(3).normal(size=slide.shape).astype(np.float32)
    other.obsm["hggep"][0, 0] = np.nan
    other.obsm["hggep_lower"], other.obsm["hggep_upper"] = other.obsm["hggep"] - 0.5, other.obsm["hggep"] + 0.75
    other.obsm["hggep_lower"][:, 0] *= 2
    tab = open_page(pl.report(other, tmp_path / "page.html", mpp=MPP))
    kinds = tab.see("['predicted', 'lower', 'upper'].map(name => DATA.sections[0][name].kind)")
    assert kinds == ["bytes", "bytes", "bytes"]
    for name, array in (("predicted", other.obsm["hggep"]), ("lower", other.obsm["hggep_lower"])):
        seen = np.array(tab.see(f"Array.from(values(DATA.sections[0], '{name}', 1), String)"), dtype=float)
        np.testing.assert_allclose(seen, array[:, 1], atol=np.ptp(array[:, 1]) / 400)
    assert tab.see("Number.isNaN(values(DATA.sections[0], 'predicted', 0)[0])")


def test_counts_above_255(open_page, tmp_path):
    deep = make_slide()
    deep.X = deep.X * 40
    tab = open_page(pl.report(deep, tmp_path / "page.html", mpp=MPP))
    seen = np.array(tab.see("Array.from(values(DATA.sections[0], 'observed', 2))"))
    np.testing.assert_allclose(seen, np.log10(1 + 1e4 * deep.X[:, 2] / deep.X.sum(axis=1)), atol=1e-5)


# ---------------------------------------------------------------- colors


def test_opacity_and_gray_tissue(path, open_page):
    tab = open_page(path)
    x, y = (
        int(v)
        for v in tab.see(
            f"[{MARKS[0]} + 100, 600].map((v, i) => scaleOf(VIEW.panels[0]) * (v - [DATA.sections[0].left, DATA.sections[0].top][i]))"
        )
    )
    opaque = tab.pixels(PREDICTED)[y, x].astype(int)
    tissue_color = tab.pixels(PICTURE)[y, x].astype(int)
    assert np.abs(opaque - tissue_color).max() > 40
    tab.click("#opacity")  # the middle: half
    half = tab.pixels(PREDICTED)[y, x].astype(int)
    assert np.abs(half - tissue_color).max() < np.abs(opaque - tissue_color).max() - 10
    for _ in range(60):
        tab.call("Input.dispatchKeyEvent", {"type": "keyDown", "key": "ArrowLeft", "windowsVirtualKeyCode": 37})
    tab.settle()
    tab.click("#marks")
    np.testing.assert_array_equal(tab.pixels(PREDICTED)[:-60], tab.pixels(PICTURE)[:-60])
    tab.click("#gray")
    pixels = tab.pixels(PREDICTED)[10:-60, 10:-10].astype(int)
    assert np.ptp(pixels, axis=2).max() <= 2
    assert np.ptp(tab.pixels(PICTURE)[10:-60, 10:-10].astype(int), axis=2).max() > 40


def on_canvas(tab, x: float, y: float) -> np.ndarray:
    """Column and row of a place of the slide in the pixels of a canvas."""
    return np.array(
        tab.see(
            f"(() => {{ const k = scaleOf(VIEW.panels[0]), c = VIEW.panels[0].canvas; return [c.clientWidth / 2 + k * ({x} -"
            f" VIEW.x), c.clientHeight / 2 + k * ({y} - VIEW.y)]; }})()"
        )
    )


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Columns and rows of the pixels that differ, without the lower border, where the scale bar is."""
    return np.argwhere((before != after).any(axis=2)[:-40])[:, ::-1]


def test_spots_have_the_colors_of_their_values(slide, path, open_page):
    tab = open_page(path)
    tab.see("VIEW.look = { opacity: 1, gray: false, marks: false }; redraw()")
    tab.settle()
    pixels, colors = tab.pixels(PREDICTED).astype(int), np.array(tab.see("DATA.colors"))
    predicted = slide.obsm["hggep"][:, slide.var_names.get_loc(tab.text("#notes h3"))]
    low, high = tab.see("DATA.ends[PAGE.genes[0]]")
    shares = np.clip((predicted - low) / (high - low), 0, 1)
    assert np.ptp(shares) > 0.5
    for spot in (shares.argmin(), shares.argmax(), len(shares) // 2):
        color = colors[round(float(shares[spot]) * (len(colors) - 1))]
        column, row = on_canvas(tab, *slide.obsm["spatial"][spot]).astype(int)
        assert pixels[row, column] == pytest.approx(color, abs=4)


def test_color_bars_have_the_ends_of_their_genes(path, open_page):
    tab = open_page(path)
    for gene in (7, 2):
        tab.see(f"chooseGene({gene})")
        ends = tab.see("DATA.ends")
        assert ends[gene] != pytest.approx(ends[0], abs=0.02)
        for kind in ("observed", "predicted"):
            words = tab.see(f"[...document.querySelectorAll('figure.{kind} .colorbar span')].map(e => e.textContent)")
            assert values(" ".join(words)) == pytest.approx(ends[gene], abs=0.0051)


def test_marks_and_ring_stand_on_their_spots(slide, path, open_page):
    tab = open_page(path)
    shown = tab.pixels(PREDICTED)
    tab.see("VIEW.look = { ...VIEW.look, marks: false }; redraw()")
    tab.settle()
    plain = tab.pixels(PREDICTED)
    (unlike,) = np.flatnonzero(slide.obs["hggep_novelty"] > 0.95)
    place = on_canvas(tab, *slide.obsm["spatial"][unlike])
    assert np.abs(changed(shown, plain) - place).max() < 8
    assert changed(shown, plain).mean(axis=0) == pytest.approx(place, abs=1.5)
    before = tab.pixels(PICTURE)
    spot = slide.obs_names.get_loc("1100x300")
    tab.see(f"choose({spot})")
    tab.settle()
    ring, place = changed(before, tab.pixels(PICTURE)), on_canvas(tab, 1100, 300)
    assert ring.mean(axis=0) == pytest.approx(place, abs=1.5)
    assert 5 < np.linalg.norm(ring - place, axis=1).mean() < 15


def luminance(color) -> float:
    part = np.array(color[:3], dtype=float) / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


TEXTS = """(() => {
  const parse = c => c.match(/[\\d.]+/g).map(Number), seen = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement, text = walk.currentNode.textContent.trim();
    if (!text || !e.checkVisibility() || ["SCRIPT", "OPTION", "NOSCRIPT"].includes(e.tagName)) continue;
    let at = e, back = [0, 0, 0, 0];
    while (at && !(back[3] ?? 1)) { back = parse(getComputedStyle(at).backgroundColor); if (back.length === 3) back.push(1); at = at.parentElement; }
    seen.push([text, parse(getComputedStyle(e).color), back[3] ? back : [255, 255, 255, 1]]);
  }
  return seen;
})()"""


def test_colors_serve_readers_who_see_them_less_well(path, open_page):
    tab = open_page(path)
    light = [luminance(color) for color in tab.see("DATA.colors")]
    assert (np.diff(light) > -1e-3).all()
    assert light[-1] - light[0] > 0.6
    texts = tab.see(TEXTS)
    assert len(texts) > 40
    for text, color, back in texts:
        low, high = sorted((luminance(color), luminance(back)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, color, back)


# ---------------------------------------------------------------- genes


def test_a_click_in_the_table_changes_the_maps(path, open_page):
    tab = open_page(path)
    before = [tab.pixels(each) for each in (PICTURE, OBSERVED, PREDICTED)]
    genes = tab.see("[...document.querySelectorAll('#scores tbody tr')].map(row => row.dataset.gene)")
    assert tab.text("#notes h3") != genes[3]
    tab.click(f"#scores tr[data-gene={genes[3]}]")
    assert tab.text("#notes h3") == genes[3]
    assert tab.text("#maps .predicted figcaption").startswith(f"{genes[3]}, predicted: PCC ")
    changed = [
        (tab.pixels(each) != then).any() for each, then in zip((PICTURE, OBSERVED, PREDICTED), before, strict=True)
    ]
    assert changed == [False, True, True]
    # By keyboard, from the row that was chosen
    tab.press("ArrowDown")
    tab.press("Enter")
    assert tab.text("#notes h3") == genes[4]
    assert tab.see("document.querySelectorAll('#scores tbody tr[tabindex=\"0\"]').length") == 1
    tab.write("#search", genes[7].lower())
    assert tab.text("#notes h3") == genes[7]


def test_headings_sort(path, open_page):
    tab = open_page(path)
    shown = "[...document.querySelectorAll('#scores tbody tr')].map(row => row.cells[0].textContent)"
    tab.click("#scores th:first-child button")
    by_name = tab.see(shown)
    assert by_name == sorted(by_name)
    assert tab.see("document.querySelector('#scores th').ariaSort") == "ascending"
    tab.press("Enter")
    assert tab.see(shown) == sorted(by_name, reverse=True)


def test_two_genes_side_by_side_zoom_together(slide, path, open_page):
    tab = open_page(path)
    first = tab.text("#notes h3")
    second = next(gene for gene in slide.var_names if gene != first)
    tab.write("#second", second)
    shown = tab.see("VIEW.panels.map(panel => [panel.kind, panel.canvas.dataset.gene ?? ''])")
    maps = [[kind, gene] for kind in ("observed", "predicted") for gene in (first, second)]
    assert shown == [["picture", ""], *maps]
    boxes = tab.see(
        "VIEW.panels.slice(1, 3).map(panel => { const b = panel.canvas.getBoundingClientRect(); return [b.x, b.y]; })"
    )
    assert boxes[0][0] < boxes[1][0]
    assert boxes[0][1] == boxes[1][1]
    canvas = f"canvas[data-kind=predicted][data-gene={second}]"
    for _ in range(3):
        tab.wheel(canvas, -300)
    assert len({scale_bar(tab, number) for number in range(1, 5)}) == 1
    tab.click("#whole")
    tab.mouse("mouseMoved", *place_of(tab, canvas, 300, 400))
    wanted = [*expected(slide, "300x400", first), *expected(slide, "300x400", second)]
    np.testing.assert_allclose(values(tab.text("#readout")), wanted, atol=0.011)
    assert tab.see("[...document.querySelectorAll('#notes h3')].map(e => e.textContent)") == [first, second]
    tab.write("#second", "")
    assert tab.see("VIEW.panels.length") == 3


def test_the_table_is_filtered_by_verdict(slide, path, open_page):
    tab = open_page(path)
    shown = "[...document.querySelectorAll('#scores tbody tr')].map(row => row.dataset.gene)"
    good, bad = slide.var_names[::2], slide.var_names[1::2]
    assert sorted(tab.see(shown)) == sorted(slide.var_names)
    tab.choose("#filter", "not predicted")
    assert sorted(tab.see(shown)) == sorted(bad)
    assert tab.text("#notes h3") in bad
    assert "Verdict: not predicted. Held-out tissue gives too little reason" in tab.text("#notes")
    tab.choose("#filter", "spot")
    assert sorted(tab.see(shown)) == sorted(good)
    assert "correlated spot by spot on held-out tissue" in tab.text("#notes")
    tab.choose("#filter", "region")
    assert tab.text("#scores tbody") == "No gene of this page has such a name and verdict."
    rows = tab.see(
        "[...document.querySelectorAll('#setsection tbody tr')].map(row => [...row.cells].map(c => c.textContent))"
    )
    assert rows[1] == [slide.var_names[1], "gene set", "not predicted", "0.00", "–"]


def test_the_page_opens_with_a_gene_whose_map_can_be_read(slide, open_page, tmp_path):
    tab = open_page(pl.report(slide, tmp_path / "page.html", mpp=MPP))
    assert "Verdict: spot." in tab.text("#notes")
    # The best score alone does not choose it
    order = "[...document.querySelectorAll('#scores tbody tr')].map(row => row.dataset.gene)"
    judged = [gene for gene in tab.see(order) if slide.var_names.get_loc(gene) % 2 == 0]
    assert tab.text("#notes h3") == judged[0]


# ---------------------------------------------------------------- words


def test_scores_that_look_like_a_mistake_are_explained(slide, open_page, tmp_path):
    trained = slide.copy()
    trained.uns["hggep"]["params"] = {"learned_from": np.array(["S"], dtype=object)}
    counts = trained.X.copy()
    total = counts.sum(axis=1, keepdims=True)
    trained.obsm["hggep"] = np.log10(1 + 1e4 * counts / total).astype(np.float32)  # the counts with all their noise
    tab = open_page(pl.report(trained, tmp_path / "page.html", mpp=MPP))
    # The table is sorted by the scores that speak for new tissue; the page opens with the first gene that can be read
    assert tab.text("#scores tbody tr td") == "GENE11"
    assert tab.text("#notes h3") == "GENE10"
    tab.click("#scores tr[data-gene=GENE0]")
    assert "too uncertain to divide by" in tab.text("#notes")
    tab.click("#scores tr[data-gene=GENE2]")
    notes = tab.text("#notes")
    assert "More than the ceiling is no mistake" in notes
    assert "the model has seen the noise of these counts" in notes
    assert "only the second PCC speaks for new tissue. It is of tissue that was held out: it can be higher." in notes
    assert "(trained on)" in tab.text("#maps .predicted figcaption")
    assert "PCC here (trained on)" in tab.text("#scores thead")
    assert "*" in tab.text("#scores tr[data-gene=GENE2]")
    assert "* Above 1: the ceiling is an estimate" in tab.text("#tablenote")
    assert "trained on this tissue (S)" in tab.text("#warn")
    new = slide.copy()
    new.uns["hggep"]["params"] = {"learned_from": np.array([], dtype=object)}
    tab = open_page(pl.report(new, tmp_path / "new.html", mpp=MPP))
    assert (
        "The first PCC holds for this section. The second is of other tissue: it can be higher or lower."
        in tab.text("#notes")
    )
    assert "trained" not in tab.text("#warn") + tab.text("#scores thead") + tab.text("#maps")


def test_research_use_is_said_first(path, open_page):
    for size in ((1400, 1000), PHONE):
        tab = open_page(path, size)
        assert "Unpacking" not in tab.text("body")
        assert tab.see("document.body.innerText").startswith("For research use only.")
        assert tab.see("document.getElementById('research').getBoundingClientRect().bottom") < 120


def test_several_sections(slide, open_page, tmp_path):
    bare = make_slide("T", seed=2)[:40].copy()
    bare = AnnData(obs=bare.obs, obsm=dict(bare.obsm), uns=dict(bare.uns))
    tab = open_page(pl.report({"one": slide, "two": bare}, tmp_path / "page.html", mpp=MPP))
    assert tab.see("VIEW.panels.length") == 3
    tab.choose("#section", "1")
    tab.wait("VIEW.section === DATA.sections[1]")
    tab.settle()
    assert tab.see("VIEW.panels.map(panel => panel.kind)") == ["picture", "predicted"]
    assert tab.see("document.getElementById('marking').hidden")
    tab.choose("#section", "0")
    tab.wait("VIEW.panels.length === 3")


def test_a_slide_without_counts_verdicts_and_scores(open_page, tmp_path):
    bare = make_slide()
    bare = AnnData(
        obs=bare.obs, obsm={"spatial": bare.obsm["spatial"], "hggep": bare.obsm["hggep"]}, uns=dict(bare.uns)
    )
    del bare.uns["hggep"]["held_out_pearson"]
    tab = open_page(pl.report(bare, tmp_path / "page.html"))
    assert tab.see("document.getElementById('filtering').hidden")
    assert tab.text("#scores thead") == "gene ▴"
    assert tab.text("#notes") == "GENE0"
    tab.mouse("mouseMoved", *place_of(tab, PREDICTED, 300, 400))
    assert re.fullmatch(r"Spot 300x400 · GENE0: predicted \d\.\d\d", tab.text("#readout"))


def test_targets_are_not_called_genes(open_page, tmp_path):
    slide = make_slide(n_genes=3)
    names = ["one", "two", "three"]
    slide.obs[names] = slide.obsm["hggep"] + 0.1
    slide.uns["hggep"] |= {"genes": np.array(names, dtype=object), "targets": {"from": "obs"}, "units": "as in obs"}
    tab = open_page(pl.report(slide, tmp_path / "page.html", mpp=MPP))
    assert "gene" not in tab.see("document.body.innerText").lower().replace("gene set", "")
    assert tab.text("h1") == "Predicted targets: S"
    assert tab.text("#scores thead") == "targetPCC here ▾PCC on held-out tissue"
    assert "3 targets in one section" in tab.text("#sub")
    assert tab.see("document.querySelector('label .noun').textContent") == "Target"
    np.testing.assert_allclose(
        tab.see("Array.from(values(DATA.sections[0], 'observed', 1))"), slide.obs["two"], atol=0.01
    )


def test_tiles_in_a_folder_are_read(slide, open_page, tmp_path):
    tab = open_page(pl.report(slide, tmp_path / "my page.html", tiles="folder", mpp=MPP))
    for _ in range(6):
        tab.wheel(PICTURE, -300)
    assert tab.see(f"document.querySelector('{PICTURE}').dataset.level") == "0"
    assert contrast_of(tab.pixels(PICTURE)) > 8


# ---------------------------------------------------------------- phone

CUT = """[...document.querySelectorAll("body *")].filter(e => e.checkVisibility() && e.clientWidth
  && (e.scrollWidth > e.clientWidth + 1 || e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < -1)
  && getComputedStyle(e).display !== "inline" && !["OPTION", "SELECT", "INPUT"].includes(e.tagName)).map(e => e.outerHTML.slice(0, 200))"""


@pytest.mark.parametrize("names", ["short", "long"])
def test_nothing_is_cut_on_a_phone(names, slide, open_page, tmp_path):
    page = slide.copy()
    page.uns["hggep"]["params"] = {"learned_from": np.array(["S"], dtype=object)}
    if names == "long":
        genes = [f"ENSG00000141510.{i}_AND_A_LONG_NAME" for i in range(page.n_vars)]
        page.var_names = genes
        page.uns["hggep"] |= {"genes": np.array(genes, dtype=object), "gene_sets": np.array(genes, dtype=object)}
    sections = {"a" * 60 if names == "long" else "S": page, "other": page}
    tab = open_page(pl.report(sections, tmp_path / "page.html", mpp=MPP), PHONE, touch=True)
    for second in ("", str(page.var_names[3])):
        tab.see(f"(() => {{ const e = $('second'); e.value = {second!r}; e.oninput({{target: e}}); }})()")
        tab.settle()
        assert tab.see("document.documentElement.scrollWidth") == PHONE[0]
        assert tab.see(CUT) == []
    # Fingers need place
    small = tab.see(
        "[...document.querySelectorAll('#zoom button, select, input[type=search]')].filter(e => e.checkVisibility()).map(e => e.offsetHeight)"
    )
    assert min(small) >= 36
    for a, b in itertools.pairwise(tab.see("VIEW.panels.map(panel => panel.canvas.clientWidth)")[1:]):
        assert a == b
