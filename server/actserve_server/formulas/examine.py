"""What its creator is told of an activation: proved by interval arithmetic where it can be, sampled where not, and which of the two."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import mpmath as mp
import numpy as np
import numpy.typing as npt

from actserve_server.activations import formula
from actserve_server.activations.spec import Activation
from actserve_server.formulas import tree
from actserve_server.formulas.define import Definition, example
from actserve_server.formulas.exact import evaluate
from actserve_server.formulas.intervals import Interval, bounds
from actserve_server.formulas.parse import builtin_tree
from actserve_server.formulas.tree import Node, walk

__all__ = ["Compiled", "Report", "examine"]

Floats = npt.NDArray[np.float64]
Compiled = Callable[[str], Callable[..., None]]
"""Gives the float64 loop of "forward" and of "derivative", as `kernels.compiler.load` does."""
Proof = Literal["proved", "sampled"]
Span = tuple[float, float]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an activation is like at its parameters' defaults, and at what `define.example` takes where there is none."""

    monotonic: Literal["increasing", "decreasing", "constant", "neither"]
    """Increasing: it never falls."""
    monotonic_proof: Proof
    """By interval arithmetic for |x| up to 700 ("proved"), or from values at many numbers."""
    range: Span
    """The values that it takes, but for the ends."""
    range_proof: Proof
    zeros: tuple[float, ...]
    """Where it is 0, within [-30, 30]; the middle of none of its flat parts."""
    kinks: tuple[float, ...]
    """Where its derivative jumps, or it itself does."""
    saturates: Literal["no", "left", "right", "both"]
    """Where its slope tends to 0."""
    lipschitz: float
    """The largest |f'|; infinite where the value jumps."""
    lipschitz_proof: Proof
    zero_centred: bool
    """Whether it takes both signs."""
    nan_regions: tuple[Span, ...]
    """Where it, or its derivative, is NaN."""
    infinite_regions: tuple[Span, ...]
    """Where it, or its derivative, is infinite."""
    dead_zone: Span | None
    """The longest interval in which its slope is 0."""
    worst_ulp: float
    """The largest error found in float64 against mpmath, in units in the last place."""
    worst_ulp_at: float
    derivative_worst_ulp: float
    derivative_worst_ulp_at: float
    speed_gb_per_s: float
    """Of float64 on one core, bytes read and written."""
    derivative_speed_gb_per_s: float
    limits: tuple[float, float, float, float]
    """f(-inf), f(inf), f'(-inf), f'(inf); NaN where there is none."""


_ULP_S = 0.2
"""How long mpmath is given to look for the largest error."""
_EDGE = 700.0
_NEAR = 30.0


def examine(definition: Definition, compiled: Compiled) -> Report:
    """Look into an activation, for a second or so; `compiled` gives its kernels.

    >>> examine(define("team.relu2", "max(x, 0)**2"), compiler_of(definition)).dead_zone
    (-inf, 0.0)
    """
    probe = _Probe(definition, compiled)
    values: Mapping[str, float] = {p.name: example(p) for p in definition.parameters}
    f, slope = _laid_open(definition.forward, values), definition.derivative
    x = _grid()
    y, dy = probe.forward(x), probe.derivative(x)
    finite = (np.isfinite(y) & np.isfinite(dy))[np.abs(x) <= _EDGE]
    kinks = _kinks(probe, x, y, dy) if _may_kink(f) else ()
    cuts = tuple(sorted({*kinks, *_switches(f, values)}))
    monotonic = _sampled_monotonic(y[np.isfinite(y)])
    proved = bool(finite.all()) and _proved_monotonic(monotonic, f, slope, values, cuts)
    span, range_proof = _range(y, f, values)
    steepest, steepest_proof = _steepest(dy, f, slope, values, cuts)
    limits = _limits(probe)
    ulp, ulp_at = probe.worst(derivative=False)
    slope_ulp, slope_ulp_at = probe.worst(derivative=True)
    return Report(
        monotonic=monotonic,
        monotonic_proof="proved" if proved else "sampled",
        range=span,
        range_proof=range_proof,
        zeros=_zeros(probe, x, y),
        kinks=kinks,
        saturates=_saturates(probe),
        lipschitz=steepest,
        lipschitz_proof=steepest_proof,
        zero_centred=bool((y < 0).any() and (y > 0).any()),
        nan_regions=_regions(probe, x, np.isnan),
        infinite_regions=_regions(probe, x, np.isinf),
        dead_zone=_dead_zone(probe, x, dy),
        worst_ulp=ulp,
        worst_ulp_at=ulp_at,
        derivative_worst_ulp=slope_ulp,
        derivative_worst_ulp_at=slope_ulp_at,
        speed_gb_per_s=probe.speed("forward"),
        derivative_speed_gb_per_s=probe.speed("derivative"),
        limits=limits,
    )


def _grid() -> Floats:
    """Where it is looked at: densely near 0, and far out."""
    near = np.linspace(-_NEAR, _NEAR, 12_001)
    far = np.concatenate([np.linspace(_NEAR, _EDGE, 1500), np.geomspace(_EDGE, 1e300, 300)])
    tiny = np.geomspace(1e-300, 1e-3, 200)
    return np.unique(np.concatenate([near, far, -far, tiny, -tiny]))


class _Probe:
    """The kernels of an activation at its defaults."""

    def __init__(self, definition: Definition, compiled: Compiled) -> None:
        self._record: Activation = definition.record
        self._compiled = compiled
        self._parameters = formula.parameters(definition.record, {p.name: example(p) for p in definition.parameters})

    def _run(self, operation: str, x: Any) -> Floats:
        given = np.atleast_1d(np.asarray(x, np.float64))
        out = np.empty_like(given)
        self._compiled(operation)(given, out, self._parameters)
        return out

    def forward(self, x: Any) -> Floats:
        """f at numbers."""
        return self._run("forward", x)

    def derivative(self, x: Any) -> Floats:
        """f' at numbers."""
        return self._run("derivative", x)

    def worst(self, *, derivative: bool) -> tuple[float, float]:
        """The largest error found, in units in the last place, and where."""
        chance = np.random.default_rng(0)
        x = np.concatenate([chance.normal(0, 2, 60), chance.uniform(-_NEAR, _NEAR, 30), np.geomspace(1e-9, 1e-1, 10)])
        got = self.derivative(x) if derivative else self.forward(x)
        chance.shuffle(order := np.arange(x.size))
        x, got = x[order], got[order]
        worst, begin = (0.0, 0.0), time.perf_counter()
        for place, found in zip(x.tolist(), got.tolist(), strict=True):
            if time.perf_counter() - begin > _ULP_S:
                break
            exact = formula.value(self._record, place, self._parameters, derivative=derivative)
            if not math.isfinite(found) or not math.isfinite(float(exact)):
                continue
            error = float(abs(exact - found)) / math.ulp(float(exact))
            worst = max(worst, (error, place))
        return worst

    def speed(self, operation: str) -> float:
        """In GB/s, of float64."""
        x = np.random.default_rng(0).standard_normal(1 << 17)
        out = np.empty_like(x)
        loop = self._compiled(operation)
        best = math.inf
        for _ in range(7):
            begin = time.perf_counter()
            loop(x, out, self._parameters)
            best = min(best, time.perf_counter() - begin)
        return 2 * x.nbytes / best / 1e9


def _sampled_monotonic(y: Floats) -> Literal["increasing", "decreasing", "constant", "neither"]:
    # What rounding alone does to a value is neither rise nor fall.
    noise = 8 * np.spacing(np.maximum(np.abs(y[1:]), np.abs(y[:-1])))
    steps = np.diff(y)
    rises, falls = bool((steps > noise).any()), bool((steps < -noise).any())
    if rises and falls:
        return "neither"
    return "increasing" if rises else ("decreasing" if falls else "constant")


_MOST_BOXES = 3000
_NARROWEST = 1e-7


def _proved_monotonic(claim: str, f: Node, slope: Node, values: Mapping[str, float], cuts: tuple[float, ...]) -> bool:
    """Whether the slope has one sign over all boxes, and no jump of the value goes the other way."""
    if claim == "neither":
        # Two values that no error explains are proof enough.
        return True
    if claim == "constant":
        return not f.depends
    sign = 1.0 if claim == "increasing" else -1.0
    jumpy = _may_jump(f)
    boxes = _boxes(cuts) if jumpy else [(-_EDGE, _EDGE)]
    if not all(_one_sign(slope, values, low, high, sign) for low, high in boxes):
        return False
    if any(sign * step < -_SAME for cut in cuts if jumpy for step in _steps(f, cut, values)):
        return False
    # Conditions that change at places not found would make what holds in each box no proof for the whole.
    return not jumpy or _decided(f, values, boxes)


_SAME = 1e-30
"""Twice what a continuous function may change by between the places that `_steps` looks at, at any slope worth a proof."""


def _steps(f: Node, place: float, values: Mapping[str, float]) -> tuple[Any, Any]:
    """By how much f rises from just before a place to the place, and from there to just after it."""
    with mp.workdps(90):
        at, beside = mp.mpf(place), mp.mpf(10) ** -60
        before, here, after = (evaluate(f, at + step, values) for step in (-beside, 0, beside))
        return here - before, after - here


def _may_jump(f: Node) -> bool:
    """Whether f has operations that are not continuous."""
    return any(node.op == "where" or (node.op == "call" and node.value == "sign") for node in walk(f))


_CORNERS = ("abs", "sign", "min", "max", "sqrt", "power", "lower_power")


def _may_kink(f: Node) -> bool:
    """Whether f has operations that make corners or jumps: of a steep but smooth function, samples alone cannot tell."""
    for node in walk(f):
        if node.op == "where" or (node.op == "call" and node.value in _CORNERS):
            return True
        if node.op == "builtin" and _may_kink(builtin_tree(*node.value)):
            return True
    return False


def _laid_open(f: Node, values: Mapping[str, float]) -> Node:
    """The tree with the formulas of those built-ins in it that jump, such as step: only of the others is a slope all that there is to know."""

    def change(node: Node) -> Node:
        if node.op != "builtin":
            return node
        record, parameters, order = node.value
        own = builtin_tree(record, parameters, order)
        return tree.put(own, node.args[0], {}) if order or not _continuous(own, values) else node

    return tree.map_tree(f, change)


def _continuous(f: Node, values: Mapping[str, float]) -> bool:
    """Whether it is sure that f, which is defined everywhere, does not jump within [-700, 700]."""
    if not _may_jump(f):
        return True
    cuts = tuple(sorted(set(_switches(f, values))))
    return _decided(f, values, _boxes(cuts)) and all(
        abs(step) <= _SAME for cut in cuts for step in _steps(f, cut, values)
    )


def _boxes(cuts: tuple[float, ...]) -> list[Span]:
    """What lies between the cuts, without them."""
    edges = [-_EDGE, *(cut for cut in cuts if abs(cut) < _EDGE), _EDGE]
    return [
        (
            math.nextafter(low, math.inf) if low in cuts else low,
            math.nextafter(high, -math.inf) if high in cuts else high,
        )
        for low, high in itertools.pairwise(edges)
    ]


def _switches(f: Node, values: Mapping[str, float]) -> list[float]:
    """Where conditions such as x > 1 change, and the sign of x."""
    found = [0.0] if any(node.op == "call" and node.value == "sign" for node in walk(f)) else []
    for node in walk(f):
        if node.op in ("lt", "le", "gt", "ge") and tree.X in node.args:
            other = node.args[1] if node.args[0] is tree.X else node.args[0]
            place = bounds(other, Interval(0.0, 0.0), values)
            if not other.depends and math.isfinite(place.low):
                found.append(place.low if place.low == place.high else (place.low + place.high) / 2)
    return found


def _decided(f: Node, values: Mapping[str, float], boxes: list[Span]) -> bool:
    """Whether every condition is decided in every box: then the value jumps nowhere but between them."""
    indicators = [tree.where(node.args[0], tree.ONE, tree.ZERO) for node in walk(f) if node.op == "where"]
    indicators += [node for node in walk(f) if node.op == "call" and node.value == "sign"]
    for low, high in boxes:
        for indicator in indicators:
            found = bounds(indicator, Interval(low, high), values)
            if found.low != found.high:
                return False
    return True


def _one_sign(slope: Node, values: Mapping[str, float], low: float, high: float, sign: float) -> bool:
    """Whether the slope times a sign is nowhere negative, by cutting the interval where that is not clear."""
    stack, looked = [(low, high)], 0
    while stack:
        low, high = stack.pop()
        found = bounds(slope, Interval(low, high), values)
        least = found.low if sign > 0 else -found.high
        if not found.undefined and least >= 0:
            continue
        looked += 1
        if looked > _MOST_BOXES or high - low < _NARROWEST:
            return False
        middle = _middle(low, high)
        stack += [(low, middle), (middle, high)]
    return True


def _middle(low: float, high: float) -> float:
    """Half-way, or by magnitude where the interval is long."""
    if high - low > 8 and (low >= 1 or high <= -1):
        return math.copysign(math.sqrt(abs(low)) * math.sqrt(abs(high)), low)
    return low / 2 + high / 2


_CLOSE = 1e-3


def _outer(node: Node, values: Mapping[str, float], *, upper: bool) -> float:
    """An upper (or a lower) bound over [-700, 700]: the box that allows most is cut again and again."""
    sign = 1.0 if upper else -1.0

    def of(low: float, high: float) -> tuple[float, float, float]:
        found = bounds(node, Interval(low, high), values)
        most = found.high if upper else -found.low
        return (-math.inf if found.undefined else -most, low, high)

    boxes = [of(-_EDGE, 0.0), of(0.0, _EDGE)]
    heapq.heapify(boxes)
    for _ in range(600):
        _, low, high = boxes[0]
        if high - low < _NARROWEST:
            break
        heapq.heappop(boxes)
        middle = _middle(low, high)
        heapq.heappush(boxes, of(low, middle))
        heapq.heappush(boxes, of(middle, high))
    return sign * -boxes[0][0]


def _range(y: Floats, f: Node, values: Mapping[str, float]) -> tuple[Span, Proof]:
    seen = y[~np.isnan(y)]
    if not seen.size:
        return (math.nan, math.nan), "sampled"
    low, high = float(seen.min()), float(seen.max())
    lowest, highest = (-math.inf if low < -1e100 else low), (math.inf if high > 1e100 else high)
    within = y[np.abs(_grid()) <= _EDGE]
    proved = True
    for upper, end, value in ((False, lowest, float(np.nanmin(within))), (True, highest, float(np.nanmax(within)))):
        if math.isinf(end):
            continue  # values that large were seen
        bound = _outer(f, values, upper=upper)
        proved &= abs(bound - value) <= _CLOSE * max(abs(high - low), abs(value), 1e-300)
    return (lowest, highest), "proved" if proved else "sampled"


def _steepest(
    dy: Floats, f: Node, slope: Node, values: Mapping[str, float], cuts: tuple[float, ...]
) -> tuple[float, Proof]:
    seen = np.abs(dy[~np.isnan(dy)])
    if not seen.size:
        return math.nan, "sampled"
    if _may_jump(f) and any(abs(step) > _SAME for cut in cuts for step in _steps(f, cut, values)):
        return math.inf, "proved"
    steepest = float(seen.max())
    if steepest > 1e100:
        return math.inf, "proved"
    bound = max(_outer(slope, values, upper=True), -_outer(slope, values, upper=False))
    near = np.abs(dy[np.abs(_grid()) <= _EDGE])
    close = bound <= float(np.nanmax(near)) * (1 + _CLOSE) + 1e-300
    if close and steepest <= bound and _continuous(f, values):
        return bound, "proved"
    return steepest, "sampled"


def _zeros(probe: _Probe, x: Floats, y: Floats) -> tuple[float, ...]:
    near = np.abs(x) <= _NEAR
    x, y = x[near], y[near]
    found: list[float] = []
    exact = np.flatnonzero(y == 0)
    # Single zeros; where neighbours are 0 too, it is flat.
    for place in exact.tolist():
        beside = y[max(place - 1, 0) : place + 2]
        if (beside == 0).sum() == 1:
            found.append(float(x[place]))
    with np.errstate(invalid="ignore", over="ignore"):
        crossings = np.flatnonzero((y[:-1] * y[1:] < 0) & np.isfinite(y[:-1]) & np.isfinite(y[1:]))
    for place in crossings.tolist():
        low, high = float(x[place]), float(x[place + 1])
        sign = math.copysign(1.0, y[place])
        for _ in range(70):
            middle = (low + high) / 2
            if math.copysign(1.0, float(probe.forward(middle)[0])) == sign:
                low = middle
            else:
                high = middle
        if abs(float(probe.forward(low)[0])) < 1e-6 * (1 + abs(float(y[place]))):
            found.append(_neat(high))
    return tuple(sorted(set(found)))[:32]


def _neat(x: float) -> float:
    """A number nearby that people would have written, if there is one."""
    neat = round(x, 9)
    return neat + 0.0 if abs(x - neat) < 1e-12 else x


def _kinks(probe: _Probe, x: Floats, y: Floats, dy: Floats) -> tuple[float, ...]:
    """Places where the derivative, or the value, changes however short the interval is."""
    near = np.flatnonzero(np.abs(x) <= _NEAR)
    x, y, dy = x[near], y[near], dy[near]
    found: list[float] = []
    for of, values in ((probe.derivative, dy), (probe.forward, y)):
        with np.errstate(invalid="ignore"):
            steps = np.abs(np.diff(values))
            scale = np.maximum(np.abs(values[1:]), np.abs(values[:-1]))
        places = np.flatnonzero(np.isfinite(steps) & (steps > 1e-4 * (scale + 1e-3)))
        # Of a steep but smooth function every step is large: those that stand out are looked at.
        order = places[np.argsort(steps[places])[::-1]][:64]
        for place in order.tolist():
            kink = _jump(of, float(x[place]), float(x[place + 1]))
            if kink is not None:
                found.append(_neat(kink))
    return tuple(sorted(set(found)))[:32]


def _jump(of: Callable[[Any], Floats], low: float, high: float) -> float | None:
    """Where a function jumps within an interval, if it does."""
    at_low, at_high = of([low, high]).tolist()
    whole = abs(at_high - at_low)
    for _ in range(60):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        here = float(of(middle)[0])
        if not math.isfinite(here):
            return None
        if abs(here - at_low) >= abs(at_high - here):
            high, at_high = middle, here
        else:
            low, at_low = middle, here
        if abs(at_high - at_low) < whole / 8 and abs(at_high - at_low) < 1e-4 * (abs(at_low) + 1e-3):
            return None
    # The corner belongs to the branch at 0 or below, as conditions say x > 0.
    return low if abs(low) < abs(high) else high


def _regions(probe: _Probe, x: Floats, is_so: Callable[[Floats], npt.NDArray[np.bool_]]) -> tuple[Span, ...]:
    """The intervals in which f or f' is NaN, or infinite."""

    def so(at: Any) -> npt.NDArray[np.bool_]:
        return is_so(probe.forward(at)) | is_so(probe.derivative(at))

    # Beyond, what grows fast enough overflows, which says nothing of the formula.
    x = x[np.abs(x) <= _EDGE]
    return tuple(_runs(so(x), x, so))[:16]


def _runs(marks: npt.NDArray[np.bool_], x: Floats, so: Callable[[Any], npt.NDArray[np.bool_]]) -> list[Span]:
    padded = np.concatenate([[False], marks, [False]])
    starts, stops = np.flatnonzero(~padded[:-1] & padded[1:]), np.flatnonzero(padded[:-1] & ~padded[1:])
    found: list[Span] = []
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        low = -math.inf if start == 0 else _edge(so, float(x[start - 1]), float(x[start]))
        high = math.inf if stop == len(x) else _edge(so, float(x[stop]), float(x[stop - 1]))
        found.append((_neat(low), _neat(high)))
    return found


def _edge(so: Callable[[Any], npt.NDArray[np.bool_]], outside: float, inside: float) -> float:
    """Where a mark begins, between a number without and one with it."""
    for _ in range(80):
        middle = outside / 2 + inside / 2
        if middle in (outside, inside):
            break
        if bool(so(middle)[0]):
            inside = middle
        else:
            outside = middle
    return inside


_FLAT = 100.0


def _dead_zone(probe: _Probe, x: Floats, dy: Floats) -> Span | None:
    def flat(at: Any) -> npt.NDArray[np.bool_]:
        return np.asarray(probe.derivative(at) == 0)

    # Far out many a slope is too small for any float64.
    runs = [
        (low, high)
        for low, high in _runs(dy == 0, x, flat)
        if high - low > 1e-6 and (abs(low) < _FLAT or abs(high) < _FLAT)
    ]
    return max(runs, key=lambda run: min(run[1], 1e9) - max(run[0], -1e9), default=None)


def _saturates(probe: _Probe) -> Literal["no", "left", "right", "both"]:
    far = np.geomspace(1e3, 1e9, 25)
    most = float(np.nanmax(np.abs(probe.derivative(np.linspace(-10, 10, 401)))))

    def level(side: float) -> bool:
        slopes = np.abs(probe.derivative(side * far))
        return bool(np.isfinite(slopes).all() and slopes[-1] <= 1e-4 * most and slopes[-1] <= slopes[0])

    left, right = level(-1.0), level(1.0)
    return "both" if left and right else ("left" if left else ("right" if right else "no"))


def _limits(probe: _Probe) -> tuple[float, float, float, float]:
    ends = [-math.inf, math.inf]
    left, right = probe.forward(ends).tolist()
    left_slope, right_slope = probe.derivative(ends).tolist()
    return left, right, left_slope, right_slope
