"""Plots of a study as SVG: Optuna's own, and a map of how its trials ended.

Optuna draws with pyplot and sets a style for the whole process; here both are undone after each plot.
"""

import logging
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import StringIO
from itertools import combinations
from typing import TYPE_CHECKING, Any

import optuna

from harness.studies.optimise import Curve, in_memory
from harness.studies.space import Parameter, value_at
from harness.studies.study import Study, Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

ENOUGH = 4  # complete trials, for what looks at settings together
SHOWN = 4  # settings in plots of pairs: six pairs
LOOK = {
    "complete": ("o", "#0072b2"), "pruned": ("v", "#e69f00"), "collapsed": ("X", "#d55e00"),
    "diverged": ("P", "#cc79a7"), "failed": ("x", "#000000"), "under way": ("d", "#999999"),
}  # fmt: skip
NOTES = {
    "fANOVA": "A forest fitted to all complete trials; those that were pruned take no part.",
    "PED-ANOVA": "The best tenth of the complete trials against all of these; those that were pruned take no part.",
}


@dataclass(frozen=True)
class Plot:
    """svg: "" where there is nothing to draw yet; note then says why."""

    title: str
    note: str = ""
    svg: str = ""


def draw(study: Study, trials: Sequence[Trial], curves: Mapping[int, Curve]) -> list[Plot]:
    """All plots of a study, in the order of the page."""
    memory, name = in_memory(study, trials, curves), study.objective
    weights = importance(memory)
    order = weights.get("fANOVA") or {p.name: 0.0 for p in study.parameters}
    varied = [key for key in order if len({str(t.params[key]) for t in complete(memory)}) > 1]
    done = len(complete(memory))
    shown = [p for p in study.parameters if p.name in list(order)[:SHOWN]]
    some = [p.name for p in shown if p.name in varied]
    view = optuna.visualization.matplotlib
    left_out = f"The {SHOWN} most important of {len(order)} settings." if len(order) > SHOWN else ""
    few = f"Needs {ENOUGH} complete trials of different value; there are {done}."
    together = "" if weights else few

    def optunas(title: str, make: Callable[[], Any], size: tuple[float, float], need: str, note: str = "") -> Plot:
        return Plot(title, need) if need else Plot(title, note, _optunas(title, make, size))

    return [
        optunas(
            "Objective by trial", lambda: view.plot_optimization_history(memory, target_name=name), (6.6, 4),
            "" if done else "Needs a complete trial.", "Complete trials, and the best so far.",
        ),
        optunas(
            "Objective while trials ran", lambda: _by_outcome(view.plot_intermediate_values(memory), study, trials),
            (6.6, 4), "" if any(curves.values()) else "No trial has reported a value yet.",
            "One line per trial on held-out images, to its end or to where it was ended.",
        ),
        map_of_outcomes(study, trials, shown),
        optunas(
            "Objective by setting", lambda: view.plot_slice(memory, varied, target_name=name),
            (1.6 + 2.1 * len(varied), 3.6), "" if varied else "Needs complete trials of different settings.",
            "Complete trials, the later the darker.",
        ),
        optunas(
            "Objective over pairs of settings", lambda: view.plot_contour(memory, some, target_name=name),
            (6, 4.5) if len(some) < 3 else (2.9 * len(some) + 1, 2.6 * len(some)),
            together or ("" if len(some) > 1 else "Needs two settings that vary."),
            f"Interpolated between complete trials. {left_out}".strip(),
        ),
        optunas(
            "Settings of each trial", lambda: _spread(view.plot_parallel_coordinate(memory, target_name=name)),
            (3 + 2.2 * len(order), 4.5), together, "One line per complete trial, the better the darker.",
        ),
        *(
            optunas(
                f"Importance by {key}",
                partial(_importances, memory, evaluator),
                (6.6, 1.6 + 0.45 * len(order)), together, NOTES[key],
            )
            for key, evaluator in evaluators().items()
        ),
    ]  # fmt: skip


def complete(memory: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return memory.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))


def evaluators() -> dict[str, optuna.importance.BaseImportanceEvaluator]:
    return {
        "fANOVA": optuna.importance.FanovaImportanceEvaluator(seed=0),
        "PED-ANOVA": optuna.importance.PedAnovaImportanceEvaluator(),
    }


def importance(memory: optuna.Study) -> dict[str, dict[str, float]]:
    """Share of each setting, most important first, by evaluator; empty where too few trials are complete."""
    done = complete(memory)
    if len(done) < ENOUGH or len({trial.value for trial in done}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            name: dict(optuna.importance.get_param_importances(memory, evaluator=one))
            for name, one in evaluators().items()
        }


# ---------------------------------------------------------------------------------------------- our own


def map_of_outcomes(study: Study, trials: Sequence[Trial], shown: Sequence[Parameter]) -> Plot:
    """For each pair of settings, where trials ended in which way."""
    title, base = "Outcomes over pairs of settings", study.base()
    pairs = list(combinations(shown, 2))
    if not pairs or not trials:
        return Plot(title, "Needs a trial." if pairs else "Needs two settings that vary.")

    def make(figure: "Figure") -> None:
        rows = -(-len(pairs) // 3)
        axes = figure.subplots(rows, min(3, len(pairs)), squeeze=False).flat
        for ax in axes[len(pairs) :]:
            ax.remove()
        for ax, (x, y) in zip(axes, pairs, strict=False):
            shaded = _panel(ax, x, y, trials)
            across, up = (_place(p, value_at(base, p.path)) for p in (x, y))
            if across is not None and up is not None:
                ax.scatter(across, up, s=190, facecolors="none", edgecolors="black", linewidths=1.5, label="default")
        marks = {label: mark for ax in figure.axes for mark, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        figure.legend(marks.values(), marks.keys(), loc="outside lower center", ncols=7, frameon=False)
        if shaded:
            figure.colorbar(shaded, ax=figure.axes, label=study.objective)

    columns = min(3, len(pairs))
    size = 3.4 * columns + 1.4, 3.2 * -(-len(pairs) // 3) + 0.5
    return Plot(title, "A circle is a complete trial, coloured by its value.", _svg(title, size, make))


def _panel(ax: "Axes", x: Parameter, y: Parameter, trials: Sequence[Trial]) -> Any:
    """All trials over two settings. Returns what a colour bar explains, None without a complete trial."""
    shaded = None
    values = [trial.value for trial in trials if trial.outcome == "complete"]
    for word, (marker, colour) in LOOK.items():
        some = [trial for trial in trials if (trial.outcome or "under way") == word]
        if not some:
            continue
        across, up = ([_place(p, trial.params[p.name]) for trial in some] for p in (x, y))
        if word == "complete":
            look: dict[str, Any] = {"c": values, "cmap": "cividis", "edgecolors": "#333333", "linewidths": 0.5}
        else:
            look = {"c": colour, "linewidths": 1.5 if marker == "x" else 0.5}
            look |= {} if marker == "x" else {"edgecolors": "#333333"}
        drawn = ax.scatter(across, up, s=45, marker=marker, label=word, **look)
        shaded = drawn if word == "complete" else shaded
    for p, axis in ((x, ax.xaxis), (y, ax.yaxis)):
        axis.set_label_text(p.name)
        if p.choices:
            texts = [f"{one:g}" if isinstance(one, float) else str(one) for one in _choices(p)]
            axis.set_ticks(range(len(texts)), texts)
        elif p.log:
            (ax.set_xscale if axis is ax.xaxis else ax.set_yscale)("log")
    return shaded


def _place(p: Parameter, value: Any) -> Any:
    """Where a value stands on an axis: choices stand side by side. None for a value that is none of them."""
    if not p.choices:
        return value
    return _choices(p).index(value) if value in p.choices else None


def _choices(p: Parameter) -> list[Any]:
    numbers = all(isinstance(one, int | float) for one in p.choices)
    return sorted(p.choices) if numbers else list(p.choices)


# ---------------------------------------------------------------------------------------------- drawing


def _by_outcome(ax: "Axes", study: Study, trials: Sequence[Trial]) -> None:
    """Optuna's twenty colours say nothing, and its legend has a line per trial."""
    words = [trial.outcome or "under way" for trial in trials]
    shown = {}
    for line in ax.lines:
        word = words[int(str(line.get_label()).removeprefix("Trial"))]
        line.set(color=LOOK[word][1], markersize=3)
        shown[word] = line
    ax.set(xlabel="epoch", ylabel=study.objective)
    ax.legend([shown[word] for word in LOOK if word in shown], [word for word in LOOK if word in shown])


def _darken(drawn: Any) -> None:
    """Optuna's scale of blues begins with white, which nobody sees on a white card."""
    from matplotlib.collections import LineCollection, PathCollection
    from matplotlib.colors import ListedColormap

    if isinstance(drawn, LineCollection | PathCollection) and drawn.get_array() is not None:
        drawn.set_cmap(ListedColormap([drawn.cmap(0.25 + 0.75 * i / 255) for i in range(256)]))


def _importances(memory: optuna.Study, evaluator: optuna.importance.BaseImportanceEvaluator) -> None:
    legend = optuna.visualization.matplotlib.plot_param_importances(memory, evaluator=evaluator).get_legend()
    if legend:  # of one entry, over the bars
        legend.remove()


def _spread(ax: "Axes") -> None:
    for label in ax.get_xticklabels():
        label.set(rotation=0, ha="center")


def _optunas(salt: str, make: Callable[[], Any], size: tuple[float, float]) -> str:
    """One of Optuna's plots without its title: the page has one."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with _quiet(), matplotlib.rc_context({"figure.constrained_layout.use": True}):
        make()
        figure = pyplot.gcf()
        try:
            figure.suptitle("")
            for ax in figure.axes:
                for place in ("left", "center", "right"):
                    ax.set_title("", loc=place)
                for drawn in ax.collections:
                    _darken(drawn)
            return _save(salt, figure, size)
        finally:
            pyplot.close(figure)


def _svg(salt: str, size: tuple[float, float], make: "Callable[[Figure], None]") -> str:
    from matplotlib.figure import Figure

    with _quiet():
        figure = Figure(layout="constrained")
        make(figure)
        return _save(salt, figure, size)


def _save(salt: str, figure: "Figure", size: tuple[float, float]) -> str:
    """As SVG for a page: the same bytes each time, letters as paths, names unlike those of other plots of the page."""
    import matplotlib

    figure.set_size_inches(*size)
    figure.set_layout_engine("constrained")
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            if axis.get_scale() == "log":
                _mark_plainly(axis)
    text = StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt, "svg.fonttype": "path"}):
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")), facecolor="w")
    return re.sub(r"^.*?(?=<svg)", "", text.getvalue(), flags=re.DOTALL)


def _mark_plainly(axis: "Axis") -> None:
    """Few numbers on a log scale, written out: matplotlib's marks run into each other."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = sorted(axis.get_view_interval())
    short, some = high < 60 * low and low >= 0.01, high < 1000 * low
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if short else (1, 3) if some else (1,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _quiet() -> warnings.catch_warnings:
    """Neither Optuna's warnings on what is experimental nor matplotlib's on layouts reach a person."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    return warnings.catch_warnings(action="ignore")
