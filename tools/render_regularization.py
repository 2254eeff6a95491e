"""Writes docs/regularization.md from the records: `python tools/render_regularization.py [--check]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from actserve.penalties import FORMS
from actserve_server.activations.spec import Parameter
from actserve_server.regularizers.catalogue import REGULARIZERS
from actserve_server.regularizers.spec import Contractive, Orthogonal, Record, Temporal

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "regularization.md"

HEAD = """\
# Activation regularization

Written from the records by `make docs`; do not edit.

    r = client.regularization("relu", x, "kl_sparsity", rho=0.1, strength=0.5, gradient=True)
    r.penalty, r.gradient, r.state

A penalty is a function of a, the activations f(x) exactly as `forward` gives them, rounded to the tensor's type; with
`of="input"` of x itself. In the formulas s is the `strength`, 0.01 when it is not given.

**Reduction.** The sum is divided by nothing (`"sum"`, the default), by the length of axis 0 (`"batch_mean"`, what Keras does
to an `activity_regularizer`), or by the number of terms (`"mean"`; the table says what those are). A penalty over no elements
is 0.

**Gradient.** `gradient=True` gives it in x's type, computed in float64 and rounded once: with respect to the activation, or
with `gradient_wrt="input"` chained with f'(x) (through the whole Jacobian, where the activation works along an axis).

**Exactness.** Sums of a, |a| and a² are exact, and so is every penalty that is a function of those: it is rounded once. Where
a term is a function of an element, a slice or a pair of rows (a power, a logarithm, an entropy, a norm, a cosine), each term
is rounded to float64, and then they are summed exactly. A slice is summed up in one fixed order with its rounding errors
carried along. So no penalty depends on chunks, threads, blocks or the order of workers.

**Merging.** `.state` holds the sums. `merge(r.state for r in parts)` gives the very bits of one pass over all the data, for
those that the table says merge; the others compare all rows with one another, and refuse. (A state of tens of thousands of
neurons that would not fit in a message is left out: `.state` is empty.) Given back, as
`regularization(..., gradient=True, state=merged)`, a state makes the gradient of a part of the data that of the penalty on all
of it: so workers that each hold a part of the batch have the right gradient of hoyer or kl_sparsity.

**What must wait for all of x.** Where the table says that the gradient needs the state first, the server holds x until the
sums are complete, within `max_slice_bytes` (64 MiB unless set). Beyond that an array is sent twice, which the client does by
itself: once for the state, once for the gradient, in constant memory. An iterable can only be gone through once: call first
without `gradient`, then again with the `state`. So it is with the means of an iterable, whose length is not known. Those that
do not merge hold x for the gradient, and, but for temporal, for the penalty itself; beyond the limit they are refused.

**NaN and infinities.** A NaN makes the penalty NaN, and so the gradient at least where it stands; they are counted, and
`nonfinite="reject"` refuses them.

"""


def merges(record: Record) -> str:
    """Whether states merge, in a word or two."""
    if isinstance(record, Orthogonal):
        return "no"
    parameter = record.axis_parameter
    if isinstance(record, Temporal) or (
        parameter is not None and parameter.name == "penalty_axis" and record.name != "group_lasso"
    ):
        return "yes; not along axis 0"
    return "yes"


def waits(record: Record) -> str:
    """Whether the gradient needs all of x first."""
    if record.whole_gradient:
        return "needs the state first"
    if isinstance(record, Orthogonal):
        return "holds x"
    parameter = record.axis_parameter
    if record.name == "group_lasso":
        return "streams; along axis 0 needs the state first"
    if parameter is not None and parameter.name == "penalty_axis":
        return "streams; along axis 0 holds x"
    return "streams"


def parameter_line(parameter: Parameter) -> str:
    """A parameter in a line."""
    default = "may be left out" if parameter.default is None else f"default {parameter.default}"
    also = f"; also `{'`, `'.join(parameter.aliases)}`" if parameter.aliases else ""
    return f"- `{parameter.name}`: {parameter.meaning} {parameter.allowed()[0].upper()}{parameter.allowed()[1:]}; {default}{also}."


def section(record: Record) -> Iterator[str]:
    """All about a regularizer."""
    yield f"## {record.name}"
    yield record.summary
    yield f"Penalty: `{record.formula}`"
    by = "" if not isinstance(record, Contractive) else " (by x)"
    yield f"Gradient{by}: `{record.gradient_formula.removesuffix(', by x')}`"
    if record.parameters:
        yield "\n".join(map(parameter_line, record.parameters))
    notes = []
    if record.aliases:
        notes.append(f"Also called {', '.join(f'`{alias}`' for alias in record.aliases)}.")
    if record.convention:
        notes.append(f"By convention: {record.convention}.")
    if record.domain:
        notes.append(f"Undefined, and refused (INVALID_ARGUMENT), for {record.domain}.")
    if record.libraries:
        notes.append(f"The same as {record.libraries}.")
    if notes:
        yield " ".join(notes)
    yield f"*{record.reference}*"


def page() -> str:
    """The whole page."""
    rows = ["| regularizer | sums it is a function of | a mean is over | gradient | merges |", "|---|---|---|---|---|"]
    for record in REGULARIZERS:
        sums = ", ".join(FORMS[record.name].quantities)
        rows.append(
            f"| [`{record.name}`](#{record.name}) | {sums} | {record.mean_over} | {waits(record)} | {merges(record)} |"
        )
    sections = ["\n\n".join(section(record)) for record in REGULARIZERS]
    return HEAD + "\n".join(rows) + "\n\n" + "\n\n".join(sections) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="say whether it is stale instead of writing it")
    check = parser.parse_args().check
    text = page()
    if PAGE.exists() and PAGE.read_text() == text:
        return 0
    if check:
        print(f"{PAGE.relative_to(ROOT)} is stale; run: make docs", file=sys.stderr)
        return 1
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
