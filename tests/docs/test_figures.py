"""The figures are what their script draws, each is shown on a page, and the README's numbers are the published ones."""

import json
import re
import statistics
import sys

import pytest

from .test_docs import PAGES, ROOT, links, text_of

FIGURES = ROOT / "docs/figures"
# draw.py imports its neighbours by name, as a script does.
sys.path.insert(0, str(FIGURES))
import draw  # noqa: E402
import engines  # noqa: E402
import speed  # noqa: E402

sys.path.remove(str(FIGURES))


@pytest.mark.parametrize("name", draw.FIGURES)
def test_the_figure_is_what_the_script_draws(name, tmp_path):
    drawn = tmp_path / "figure.svg"
    draw.draw(name).save(drawn)
    assert drawn.read_text() == (FIGURES / f"{name}.svg").read_text(), "run python docs/figures/draw.py"


def test_every_figure_is_drawn_and_shown():
    on_disk = {path.relative_to(FIGURES).with_suffix("").as_posix() for path in FIGURES.rglob("*.svg")}
    assert on_disk == set(draw.FIGURES)
    shown = {((ROOT / page).parent / link).resolve() for page in PAGES for link in links(page) if link.endswith(".svg")}
    assert shown == {FIGURES / f"{name}.svg" for name in draw.FIGURES}


def test_every_word_of_the_glossary_is_drawn():
    sections = text_of("docs/glossary.md").split("\n## ")[1:]
    assert len(sections) >= 10
    assert [
        section.splitlines()[0] for section in sections if not re.search(r"^!\[.*\]\(.*\.svg\)$", section, re.M)
    ] == []


def readme_numbers() -> list[float]:
    """Every ratio of the README's table: for each operation and kernel size, mean and worst in both memory formats."""
    table = text_of("README.md").split("computed from the published results")[1].split("\n\n")[0]
    return [float(number) for number in re.findall(r"\d+\.\d\d", table)]


def test_the_readme_shows_the_published_ratios():
    expected = []
    for operation in speed.OPERATIONS:
        for large in (False, True):
            for layout in speed.LAYOUTS:
                ratios = speed.ratios(operation, layout, large)
                expected += [round(statistics.geometric_mean(ratios), 2), round(min(ratios), 2)]
    assert readme_numbers() == expected


def test_the_readme_opens_with_the_mean_of_all_cases():
    ratios = [
        ratio
        for operation in speed.OPERATIONS
        for layout in speed.LAYOUTS
        for large in (False, True)
        for ratio in speed.ratios(operation, layout, large)
    ]
    opening = " ".join(text_of("README.md").split("\n## ")[0].split())
    assert f"**{statistics.geometric_mean(ratios):.1f} times as fast as PyTorch**" in opening
    assert f"slowest of these {len(ratios)} cases is {min(ratios):.1f} times as fast" in opening


def engine_ratios() -> dict[str, list[float]]:
    """Of each model, for the columns that were published: time of the better other engine / ours."""
    path = engines.published()
    assert path is not None
    ratios: dict[str, list[float]] = {}
    for record in json.loads(path.read_text())["models"]:
        times = {name: timing["median"] for name, timing in record["times"].items()}
        others = min(times[name] for name in ("onnxruntime", "openvino") if name in times)  # one takes no bfloat16
        ratios.setdefault(record["model"], []).append(others / times["fused"])
    return ratios


def test_the_readme_shows_the_published_engines():
    readme = text_of("README.md")
    table = readme.split("computed from the published engines")[1].split("\n\n")[0]
    shown = [float(number) for number in re.findall(r"\d+\.\d\d", table)]
    ratios = engine_ratios()
    means = [statistics.geometric_mean(column) for column in zip(*ratios.values(), strict=True)]
    assert shown == [round(value, 2) for row in (*ratios.values(), means) for value in row]
    opening = " ".join(readme.split("\n## ")[0].split())
    assert f"**{means[0]:.1f} times as fast as the better of ONNX Runtime and OpenVINO**" in opening
    assert (
        f"over {len(ratios)} models; the slowest is {min(row[0] for row in ratios.values()):.1f} times as fast"
        in opening
    )


def test_a_changed_figure_is_noticed(tmp_path, monkeypatch):
    """Or the comparison above could not fail."""
    monkeypatch.setitem(draw.FIGURES, "tile", draw.FIGURES["lattice"])
    with pytest.raises(AssertionError):
        test_the_figure_is_what_the_script_draws("tile", tmp_path)


def _engine_results(**others):
    """Records of every model: each of the forms takes a millisecond more than the one before."""
    forms = [form for names, _ in engines.ENGINES.values() for form in names]
    times = {form: {"median": 1e-3 * (number + 1)} for number, form in enumerate(forms)}
    record = {"dtype": "f32", "batch": 1, "threads": 1, **others}
    return {"models": [{"times": dict(times), **record, "model": model} for model in engines.MODELS]}


def test_the_figure_of_engines_shows_the_time_of_each():
    shapes = "\n".join(engines.picture_of(_engine_results()).shapes)
    assert re.findall(r">([\d.]+) ms<", shapes) == ["1", "3", "4", "5"] * len(engines.MODELS)
    bars = [float(width) for width in re.findall(r'width="([\d.]+)" height="14" fill', shapes)][len(engines.ENGINES) :]
    assert bars == pytest.approx([560 * time / 5 for time in (1, 3, 4, 5)] * len(engines.MODELS))


def test_of_several_runs_the_median_is_shown_and_no_other_cell():
    results = _engine_results()
    for factor in (10, 2):
        slower = _engine_results()["models"][0]
        slower["times"] = {form: {"median": factor * time["median"]} for form, time in slower["times"].items()}
        results["models"].append(slower)
    results["models"] += _engine_results(threads=2, times={"plain": {"median": 1e-9}})["models"]
    assert engines.milliseconds(results, "mobilenet_v2", "PyTorch, eager") == pytest.approx(2)


def test_what_was_not_measured_is_not_drawn():
    results = _engine_results()
    del results["models"][-1]["times"]["openvino"]
    with pytest.raises(ValueError, match="convnext_tiny was not measured in OpenVINO"):
        engines.picture_of(results)


def test_the_newest_results_are_drawn(tmp_path):
    assert engines.published(tmp_path) is None
    for name in ("2026-12-01-engines.json", "2027-01-01-engines.json", "2027-02-01-published.json"):
        (tmp_path / name).touch()
    assert engines.published(tmp_path) == tmp_path / "2027-01-01-engines.json"
    assert ("engines" in draw.FIGURES) == (engines.published() is not None)
