"""What was found out about an added activation, as the rows of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence

from actserve_client.records import Report, Span

Row = tuple[str, str]


def rows(report: Report) -> list[Row]:
    """The rows, each a heading and a text.

    >>> rows(client.create_activation("team.double", "2 * x").report)[0]
    ('monotonic', 'increasing (proved)')
    """
    found = [
        ("monotonic", f"{report.monotonic} ({report.monotonic_proof})"),
        ("range", f"{_span(report.range)} ({report.range_proof})"),
        ("zero-centred", "yes" if report.zero_centred else "no"),
        ("zeros", _numbers(report.zeros)),
        ("kinks", _numbers(report.kinks)),
        ("saturates", report.saturates),
        ("steepest slope", f"{report.lipschitz:.6g} ({report.lipschitz_proof})"),
        ("slope is 0 in", "no interval" if report.dead_zone is None else _span(report.dead_zone)),
        ("NaN in", _spans(report.nan_regions)),
        ("infinite in", _spans(report.infinite_regions)),
        ("worst error", _error(report.worst_ulp, report.worst_ulp_at)),
        ("of the slope", _error(report.derivative_worst_ulp, report.derivative_worst_ulp_at)),
        (
            "speed",
            f"{report.speed_gb_per_s:.1f} GB/s, the slope {report.derivative_speed_gb_per_s:.1f} (float64, one core)",
        ),
    ]
    return found + [
        ("computed as", f"{rewrite.after} for {rewrite.before}: {rewrite.reason}") for rewrite in report.rewrites
    ]


def _span(span: Span) -> str:
    low, high = span
    return f"{'(' if math.isinf(low) else '['}{low:.6g}, {high:.6g}{')' if math.isinf(high) else ']'}"


def _spans(spans: Sequence[Span]) -> str:
    return ", ".join(map(_span, spans)) or "nowhere"


def _numbers(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:.6g}" for number in numbers) or "none"


def _error(ulp: float, at: float) -> str:
    return f"{ulp:.3g} units in the last place of a float64, at {at:.6g}"


__all__ = ["rows"]
