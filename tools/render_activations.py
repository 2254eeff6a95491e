"""Writes docs/activations.md and the curves beside it from the records: `python tools/render_activations.py [--check]`.

The page says what each activation is, what it takes, what other libraries call it, and how accurate it was measured to be
(docs/accuracy.json, written by `make accuracy`). Curves are drawn from the formulas, not from kernels, so that nothing is
compiled, and rounded to what a picture shows, so that every machine draws the same.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "activations")]

import mpmath as mp
import oracle  # type: ignore[import-not-found]  # the formulas' evaluator, which lives with the tests
from actserve_server.activations.catalogue import CATALOGUE
from actserve_server.activations.spec import (
    Activation,
    AxisActivation,
    GatedActivation,
    Parameter,
    Record,
    ResizingActivation,
)

PAGE = ROOT / "docs" / "activations.md"
CURVES = ROOT / "docs" / "curves"
MEASURED = ROOT / "docs" / "accuracy.json"

KINDS = {
    Activation: "Each element by itself",
    AxisActivation: "Along an axis",
    GatedActivation: "Gated units",
    ResizingActivation: "Axes that change their length",
}
LIBRARY_NAMES = {
    "torch": "PyTorch",
    "jax": "JAX",
    "flax": "Flax",
    "keras": "Keras",
    "tensorflow": "TensorFlow",
    "onnx": "ONNX",
    "onednn": "oneDNN",
    "huggingface": "Hugging Face",
    "ggml": "ggml",
    "timm": "timm",
}

# ---- curves ----------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT, SPAN, POINTS = 320, 200, 5.0, 161


def line(record: Record) -> tuple[list[float], list[float], list[float]] | None:
    """x, f(x) and f'(x) over [-5, 5]; None for what has no curve of one number."""
    xs = [SPAN * (2 * k / (POINTS - 1) - 1) for k in range(POINTS)]
    params = oracle.parameters(record)
    if isinstance(record, Activation):
        return (
            xs,
            [float(oracle.value(record, x, params)) for x in xs],
            [float(oracle.value(record, x, params, derivative=True)) for x in xs],
        )
    if isinstance(record, AxisActivation) and all(p.default is not None for p in record.parameters):
        pairs = [[x, 0.0] for x in xs]
        return (
            xs,
            [float(oracle.slice_values(record, pair, params)[0]) for pair in pairs],
            [float(oracle.slice_jacobian(record, pair, params)[0][0]) for pair in pairs],
        )
    if isinstance(record, GatedActivation):
        return (
            xs,
            [float(oracle.gate(record, x, 1.0, params)) for x in xs],
            [float(oracle.gate(record, x, 1.0, params, partial="u")) for x in xs],
        )
    return None


def picture(xs: Sequence[float], ys: Sequence[float], slopes: Sequence[float]) -> str:
    """A curve in blue and its derivative in dashed red, as the article's visualizer has them, as SVG."""
    finite = [value for value in (*ys, *slopes) if math.isfinite(value)]
    low, high = max(min(finite), -SPAN), min(max(finite), SPAN)
    low, high = min(low, -0.25), max(high, 1.0)
    margin = 0.08 * (high - low)
    low, high = low - margin, high + margin

    def place(x: float, y: float) -> str:
        return f"{(x + SPAN) / (2 * SPAN) * WIDTH:.1f},{(high - y) / (high - low) * HEIGHT:.1f}"

    def path(values: Sequence[float]) -> Iterator[str]:
        pen = False
        previous = math.nan
        for x, y in zip(xs, values, strict=True):
            # A leap of more than a quarter of the picture between two points is a jump, not a line.
            jump = abs(y - previous) > (high - low) / 4
            inside = math.isfinite(y) and low - 1 <= y <= high + 1
            yield ("L" if pen and not jump else "M") + place(x, y) if inside else ""
            pen, previous = inside, y

    def drawn(values: Sequence[float], style: str) -> str:
        return f'<path d="{"".join(path(values))}" fill="none" {style}/>'

    zero = (high / (high - low)) * HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
        f'<path d="M0,{zero:.1f}H{WIDTH}M{WIDTH / 2:.0f},0V{HEIGHT}" stroke="#bbb"/>'
        + drawn(ys, 'stroke="#1f4fd8" stroke-width="2"')
        + drawn(slopes, 'stroke="#d03030" stroke-width="1.5" stroke-dasharray="5 3"')
        + "</svg>\n"
    )


# ---- the page --------------------------------------------------------------------------------------------------------


def anchor(record: Record) -> str:
    return record.name.replace(" ", "-")


def shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"`{value}`" if isinstance(value, str) else f"{value:.17g}" if isinstance(value, float) else str(value)


def parameter_row(parameter: Parameter) -> str:
    names = " or ".join(f"`{name}`" for name in (parameter.name, *parameter.aliases))
    default = shown(parameter.default)
    if parameter.default is None:
        default = "may be left out" if parameter.optional else "must be given"
    return f"| {names} | {default} | {parameter.allowed()} | {parameter.meaning} |"


def traits(record: Record) -> str:
    marks = record.traits
    words = [
        "monotonic" if marks.monotonic else "not monotonic",
        "takes both signs" if marks.zero_centred else "takes one sign",
        {"no": "does not saturate", "both": "saturates on both sides"}.get(
            marks.saturates, f"saturates on the {marks.saturates}"
        ),
        "smooth" if marks.smooth else "not smooth",
    ]
    kinks = getattr(record, "kinks", ())
    if kinks:
        words[-1] += " at " + ", ".join(f"{kink:g}" for kink in kinks)
    return ", ".join(words)


def formulas(record: Record) -> list[str]:
    if isinstance(record, GatedActivation):
        return [f"    y     = {record.formula}", f"    dy/du = {record.u_formula}", f"    dy/dv = {record.v_formula}"]
    if isinstance(record, Activation):
        lines = [f"    f(x)  = {record.formula}", f"    f'(x) = {record.derivative_formula}"]
        return lines + [f"    df/d{gradient.parameter} = {gradient.formula}" for gradient in record.gradients]
    return [f"    y[i]        = {record.formula}", f"    dy[i]/dx[k] = {record.derivative_formula}"]


def libraries(record: Record) -> list[str]:
    lines = []
    for there in record.libraries:
        names = ", ".join(f"`{name}`" for name in there.names)
        notes = [f"{name} = {shown(value)}" for name, value in there.defaults]
        notes += [f"{theirs} is {ours}" for theirs, ours in there.renamed]
        lines.append(f"{LIBRARY_NAMES[there.library]}: {names}" + (f" ({', '.join(notes)})" if notes else ""))
    return lines


def measured(record: Record, figures: dict[str, Any]) -> list[str]:
    """What `make accuracy` found, ours and others', of the value and of the derivative."""
    found = figures.get(record.name)
    if found is None:
        return []
    lines = [
        "| error in ULP, at most | float32 | fast | float64 | 16 bits | others, float32 / float64 |",
        "|---|---|---|---|---|---|",
    ]
    for operation, sign in (("forward", "f"), ("derivative", "f'")):
        cells = found[operation]
        ours = [f"{cells[form]['ulp']:.3g}" for form in ("float32 exact", "float32 fast", "float64")]
        wrong = sum(cells[kind]["wrongly_rounded"] for kind in ("float16", "bfloat16"))
        others = [
            f"{name} {' / '.join(f'{float(ulp):.2g}' for ulp in errors.values())}"
            for name, errors in cells.get("others", {}).items()
        ]
        rounding = "correctly rounded" if wrong == 0 else f"{wrong} of 131,072 wrong"
        lines.append(f"| {sign} | {' | '.join(ours)} | {rounding} | {'; '.join(others) or '-'} |")
    return [*lines, ""]


def section(record: Record, figures: dict[str, Any], curve: bool) -> list[str]:
    lines = [f"### {record.name}", "", record.summary, ""]
    if curve:
        lines += [f"![{record.name} and its derivative](curves/{record.name}.svg)", ""]
    lines += [*formulas(record), "", f"Range {record.range}; {traits(record)}. {record.advice}", ""]
    if record.parameters:
        lines += ["| parameter | default | allowed | meaning |", "|---|---|---|---|"]
        lines += [*(parameter_row(parameter) for parameter in record.parameters), ""]
    lines += [f"{constraint.words}." for constraint in record.constraints] + [""] * bool(record.constraints)
    lines += measured(record, figures)
    names = libraries(record)
    if record.aliases:
        names.insert(0, "also: " + ", ".join(f"`{alias}`" for alias in record.aliases))
    lines += ["; ".join(names) + ".", ""] * bool(names)
    return [*lines, f"*{record.reference}*", ""]


def page(curves: set[str]) -> str:
    figures = json.loads(MEASURED.read_text())["activations"]
    lines = [
        "# Activations",
        "",
        f"The {len(CATALOGUE)} activations that are built in. This page is written by `make docs` from the records in",
        "`server/actserve_server/activations/`; `actserve describe NAME` shows the same of a running server.",
        "",
        "Curves show f(x) in blue and f'(x) in dashed red over [-5, 5]: along an axis, of the first element of [x, 0]; of a gated",
        "unit, over u where v = 1. Formulas are Python expressions; at a kink the corner belongs to the inactive branch.",
        "A `preset` resolves a library's name, and its defaults where they differ from ours. Errors are the largest that",
        "`make accuracy` found, away from zeros, in units in the last place: at stratified points, and in float32 at two million",
        "more; of 16 bits it tries all inputs.",
        "",
    ]
    for kind, title in KINDS.items():
        links = ", ".join(f"[{record.name}](#{anchor(record)})" for record in CATALOGUE if isinstance(record, kind))
        lines += [f"**{title}**: {links}", ""]
    for kind, title in KINDS.items():
        lines += [f"## {title}", ""]
        for record in CATALOGUE:
            if isinstance(record, kind):
                lines += section(record, figures, record.name in curves)
    return "\n".join(lines).rstrip() + "\n"


def files() -> dict[Path, str]:
    drawn = {record.name: line(record) for record in CATALOGUE}
    content = {CURVES / f"{name}.svg": picture(*curve) for name, curve in drawn.items() if curve is not None}
    return content | {PAGE: page({name for name, curve in drawn.items() if curve is not None})}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="say what is stale instead of writing it")
    check = parser.parse_args().check
    mp.mp.dps = 40
    content = files()
    stale = [path for path, text in content.items() if not path.exists() or path.read_text() != text]
    stale += [path for path in CURVES.glob("*.svg") if path not in content]
    if check:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is stale; run: make docs", file=sys.stderr)
        return 1 if stale else 0
    CURVES.mkdir(exist_ok=True)
    for path in stale:
        if path in content:
            path.write_text(content[path])
        else:
            path.unlink()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
