"""Charts of a report: Vega-Lite specifications, made and checked by Altair.

Shares stay shares, 0..1, as in `comparison.json`: axes and tooltips show them as percent.
"""

import altair

__all__ = [
    "draw_accuracies",
    "draw_confusion",
    "draw_curves",
    "draw_gains",
    "draw_plane",
    "draw_reliability",
    "draw_tradeoff",
]

# Readable on white and on black.
_PALETTE = ("#4c86c6", "#ee854a", "#3fa35a", "#d65f5f", "#9270ca", "#a57c5f", "#dc7ec0", "#b0a03c", "#3fa7b8")
_MOODS = {"BETTER": "#2e9e5b", "WORSE": "#d65f5f", "NOT SHOWN": "#8c8c8c"}
_TEACHER_COLOR = "#8c8c8c"
_ROW = 34  # pixels of a method's row
_TEACHER = "teacher"
# Pixels beside the axis of a chart on a phone, and of a symbol and a letter of a legend; what is too wide is cut off.
_NARROWEST, _SYMBOL, _LETTER = 270, 20, 6.2


def draw_accuracies(runs, intervals, teacher=None, title="test accuracy"):
    """Draws the accuracy of each method: every seed a dot, the mean a tick, its interval a line, the teacher a rule.

    Args:
        runs: list of dicts `{"method", "seed", "accuracy"}`.
        intervals: list of dicts `{"method", "mean", "low", "high"}`, in the order of the rows.
        teacher: the teacher's accuracy; None for none.
        title: what the accuracy is.

    Returns:
        The specification.
    """
    order = [each["method"] for each in intervals]
    y = altair.Y("method:N", sort=order, title=None, axis=altair.Axis(labelLimit=150))
    x = altair.X("accuracy:Q", title=title, axis=_percent(), scale=altair.Scale(zero=False))
    tips = [_tip("method:N"), _tip("mean:Q", ".2%"), _tip("low:Q", ".2%"), _tip("high:Q", ".2%")]
    base = altair.Chart(_data(intervals)).encode(y=y)
    layers = [
        base.mark_rule(strokeWidth=2, opacity=0.6, color="currentColor").encode(
            x=altair.X("low:Q", title=title, axis=_percent(), scale=altair.Scale(zero=False)),
            x2="high:Q",
            tooltip=tips,
        ),
        base.mark_tick(thickness=3, size=18, color="currentColor").encode(x="mean:Q", tooltip=tips),
        altair.Chart(_data(runs))
        .mark_circle(size=70, opacity=0.75)
        .encode(
            y=y,
            x=x,
            color=_color(order, legend=False),
            tooltip=[_tip("method:N"), _tip("seed:O"), _tip("accuracy:Q", ".2%")],
        ),
    ]
    if teacher is not None:
        rule = altair.Chart(_data([{"name": _TEACHER, "accuracy": teacher}]))
        tip = [_tip("name:N", title="model"), _tip("accuracy:Q", ".2%")]
        layers.append(rule.mark_rule(strokeDash=[6, 4], color=_TEACHER_COLOR, size=2).encode(x=x, tooltip=tip))
        layers.append(
            rule.mark_text(align="right", dx=-5, dy=-5, baseline="bottom", color=_TEACHER_COLOR).encode(
                x=x, y=altair.value(_ROW * len(order)), text="name:N"
            )
        )
    return _finish(altair.layer(*layers), _ROW * len(order))


def draw_gains(gains):
    """Draws each method's gain against the student alone, with its interval.

    Args:
        gains: list of dicts `{"method", "gain", "low", "high", "decision"}`; low and high may be None.

    Returns:
        The specification.
    """
    order = [each["method"] for each in gains]
    points = altair.Axis(labelExpr="format(datum.value * 100, '+.1f')", labelOverlap=True)
    title = "gain, points"
    tips = [_tip("method:N"), _tip("decision:N"), *(_tip(f"{name}:Q", "+.2%") for name in ("gain", "low", "high"))]
    y = altair.Y("method:N", sort=order, title=None, axis=altair.Axis(labelLimit=150))
    color = altair.Color("decision:N", scale=altair.Scale(domain=list(_MOODS), range=list(_MOODS.values())))
    # One below the other: beside the names of methods a phone has no room for two.
    color = color.legend(orient="bottom", title=None, columns=1)
    base = altair.Chart(_data(gains)).encode(y=y, color=color, tooltip=tips)
    zero = altair.Chart(_data([{"gain": 0.0}])).mark_rule(color="currentColor", opacity=0.5).encode(x="gain:Q")
    x = altair.X("gain:Q", title=title, axis=points)
    bounded = base.transform_filter("datum.low !== null")
    return _finish(
        altair.layer(
            zero, bounded.mark_rule(strokeWidth=2).encode(x=altair.X("low:Q", title=title, axis=points), x2="high:Q"),
            base.mark_point(filled=True, size=90, opacity=1).encode(x=x),
        ),
        _ROW * len(order),
    )  # fmt: skip


def draw_tradeoff(models, cost, title, names=None, accuracy="test accuracy"):
    """Draws accuracy against a cost, a point for each model.

    Args:
        models: list of dicts `{"model", "accuracy", cost}`.
        cost: `"parameters"`, `"bytes"` or `"milliseconds"`.
        title: of the axis.
        names: of all models of the page, in the order that decides their colours; those of `models` if not given.
        accuracy: what the accuracy is.

    Returns:
        The specification.
    """
    names = names or [each["model"] for each in models]
    # From the teacher to the student it is often a hundred times.
    log, narrow = altair.Scale(type="log", nice=True, padding=20), altair.Scale(zero=False, padding=12)
    chart = (
        altair.Chart(_data(models))
        .mark_point(filled=True, size=110, opacity=0.85)
        .encode(
            # Prefixes such as k are for counts: of milliseconds 200m would be read as minutes, or worse.
            x=altair.X(f"{cost}:Q", title=title, scale=log, axis=_short("~g" if cost == "milliseconds" else "~s")),
            y=altair.Y("accuracy:Q", title=accuracy, axis=_percent(), scale=narrow),
            color=_color(names, field="model", shown=[each["model"] for each in models]),
            shape=altair.condition(f"datum.model == '{_TEACHER}'", altair.value("diamond"), altair.value("circle")),
            tooltip=[_tip("model:N"), _tip("accuracy:Q", ".2%"), _tip(f"{cost}:Q", ",.6~g")],
        )
    )
    return _finish(chart, 220)


def draw_curves(rows, names, share=False):
    """Draws a term epoch by epoch: a colour for each model, held-out images dashed.

    Args:
        rows: list of dicts `{"model", "images", "epoch", "value"}`.
        names: of all models of the page, in the order that decides their colours.
        share: whether values are shares, shown as percent.

    Returns:
        The specification.
    """
    there = {row["model"] for row in rows}
    dash = altair.Scale(domain=["train", "held out"], range=[[1, 0], [5, 4]])
    form = altair.Axis(format="~%" if share else ".4~g")
    epochs = sorted({row["epoch"] for row in rows})
    # Of two or three epochs Vega would mark the halves, whatever the step, and write them as whole ones.
    marked = altair.Axis(tickMinStep=1, format="d", values=epochs if len(epochs) < 4 else altair.Undefined)
    # A curve of one epoch is a point.
    chart = altair.Chart(_data(rows)).mark_line(point=altair.OverlayMarkDef(size=18), strokeWidth=1.8)
    chart = chart.encode(
        x=altair.X("epoch:Q", axis=marked, scale=altair.Scale(nice=False)),
        y=altair.Y("value:Q", title=None, axis=form, scale=altair.Scale(zero=False)),
        color=_color(names, field="model", shown=[name for name in names if name in there]),
        strokeDash=altair.StrokeDash("images:N", scale=dash, legend=None),
        tooltip=[_tip("model:N"), _tip("images:N"), _tip("epoch:Q"), _tip("value:Q", ".2%" if share else ".4g")],
    )
    return _finish(chart, 200)


def draw_confusion(rows, names):
    """Draws a confusion matrix: a cell is the stronger, the larger its share of the label's images.

    Args:
        rows: list of dicts `{"label", "named", "images", "share"}`.
        names: of the classes, in order.

    Returns:
        The specification.
    """
    strength = altair.Opacity("share:Q", scale=altair.Scale(domain=[0, 0.05, 1], range=[0.04, 0.4, 1]), legend=None)
    tips = [_tip("label:N"), _tip("named:N"), _tip("images:Q"), _tip("share:Q", ".2%")]
    # Upright where they are short enough for the narrowest screen.
    upright = altair.Axis(labelLimit=90, labelOverlap=True, labelAngle=0 if max(map(len, names)) < 3 else -60)
    chart = altair.Chart(_data(rows)).mark_rect()
    chart = chart.encode(
        x=altair.X("named:N", sort=names, title="named", axis=upright),
        y=altair.Y("label:N", sort=names, title="label", axis=altair.Axis(labelLimit=90, labelOverlap=True)),
        opacity=strength,
        color=altair.condition("datum.label == datum.named", altair.value(_PALETTE[0]), altair.value(_PALETTE[3])),
        tooltip=tips,
    )
    return _finish(chart, max(220, min(420, 24 * len(names))))


def draw_reliability(ranges, names):
    """Draws the accuracy of predictions by their confidence, a line for each model, beside the dotted ideal.

    Args:
        ranges: list of dicts `{"model", "confidence", "accuracy", "count"}`.
        names: of the models, in the order that decides their colours.

    Returns:
        The specification.
    """
    whole = altair.Scale(domain=[0, 1])
    x = altair.X("confidence:Q", title="confidence", axis=_percent(), scale=whole)
    y = altair.Y("accuracy:Q", title="accuracy", axis=_percent(), scale=whole)
    ideal = altair.Chart(_data([{"confidence": end, "accuracy": end} for end in (0, 1)]))
    line = altair.Chart(_data(ranges)).encode(x=x, y=y, color=_color(names, field="model"))
    tips = [_tip("model:N"), _tip("confidence:Q", ".2%"), _tip("accuracy:Q", ".2%"), _tip("count:Q", title="images")]
    size = altair.Size("count:Q", scale=altair.Scale(range=[20, 260]), legend=None)
    return _finish(
        altair.layer(
            ideal.mark_line(strokeDash=[2, 4], color="currentColor", opacity=0.6).encode(x=x, y=y),
            line.mark_line(opacity=0.6),
            line.mark_circle(opacity=0.8).encode(size=size, tooltip=tips),
        ),
        320,
    )


def draw_plane(rows, names):
    """Draws points on a plane, a colour for each class, a cross where the model is wrong.

    Args:
        rows: list of dicts `{"x", "y", "class", "named", "right", "image"}`.
        names: of the classes, in order; where there are many, colours repeat.

    Returns:
        The specification.
    """
    scheme = altair.Scale(domain=names or altair.Undefined, scheme="tableau10" if len(names) <= 10 else "tableau20")
    legend = _legend(names, most=5, limit=120, symbolType="circle")
    bare = altair.Axis(labels=False, ticks=False, domain=False, grid=False, title=None)
    tips = [_tip("class:N"), _tip("named:N"), _tip("image:Q", title="test image")]
    chart = altair.Chart(_data(rows)).mark_point(filled=True, opacity=0.8, size=55)
    chart = chart.encode(
        x=altair.X("x:Q", axis=bare),
        y=altair.Y("y:Q", axis=bare),
        color=altair.Color("class:N", scale=scheme, legend=legend if len(names) <= 20 else None),
        shape=altair.condition("datum.right", altair.value("circle"), altair.value("cross")),
        tooltip=tips,
    )
    return _finish(chart, 320)


def _data(values):
    return altair.Data(values=values)


def _percent():
    return altair.Axis(format="~%", labelOverlap=True, labelFlush=False)


def _short(form):
    return altair.Axis(format=form, tickCount=5, labelOverlap=True)


def _legend(names, most, limit, **more):
    """Makes a legend below a chart, of as many columns as a phone has room for; long names are cut at `limit`."""
    width = _SYMBOL + min(limit, _LETTER * max(map(len, names), default=0))
    columns = max(1, min(most, int(_NARROWEST // width)))
    return altair.Legend(orient="bottom", title=None, columns=columns, labelLimit=limit, **more)


def _tip(field, form=None, title=None):
    more = {"format": form} if form else {}
    return altair.Tooltip(field, title=title or field.partition(":")[0], **more)


def _color(names, field="method", legend=True, shown=altair.Undefined):
    """Colours by name; `shown` are the names that the legend lists, all if not given."""
    colors = [_TEACHER_COLOR if name == _TEACHER else None for name in names]
    others = (_PALETTE[i % len(_PALETTE)] for i in range(len(names)))
    scale = altair.Scale(domain=names, range=[color or next(others) for color in colors])
    listed = names if shown is altair.Undefined else shown
    legend = _legend(listed, most=3, limit=220, values=shown) if legend else None
    return altair.Color(f"{field}:N", scale=scale, legend=legend)


def _finish(chart, height):
    """Returns the specification of a chart as wide as its place, in the colours of the page around it."""
    # "currentColor" is that of the text of the page, light or dark: charts are drawn as SVG, which inherits it.
    text = {f"{part}Color": "currentColor" for part in ("label", "title")} | {"labelFontSize": 12, "titleFontSize": 12}
    lines = {f"{part}Color": "currentColor" for part in ("grid", "domain", "tick")} | {"gridOpacity": 0.15}
    fit = altair.AutoSizeParams(type="fit-x", contains="padding")
    return (
        chart.properties(width="container", height=height, autosize=fit)
        # Named, not inherited: what a text takes is measured outside of the page.
        .configure(background="transparent", font="system-ui, sans-serif")
        .configure_axis(**text, **lines, titleFontWeight="normal")
        .configure_legend(**text)
        .configure_view(stroke=None)
        .to_dict()
    )
