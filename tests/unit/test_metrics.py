"""What a process counts, and the classes that its faults are told by."""

from __future__ import annotations

import pytest

from flashsale.errors import EventFault, StoreError, SystemFault, TransientFault, UnclassifiedFault
from flashsale.metrics import Histogram, WorkerMetrics


def test_a_value_counts_in_the_first_bucket_that_is_not_below_it() -> None:
    histogram = Histogram((1, 5))
    for value in (0.5, 1, 1.5, 5, 6, 7):
        histogram.observe(value)

    assert histogram.report() == {"counts": [2, 2, 2], "sum": 21.0}


@pytest.mark.parametrize(
    ("error", "kind", "sqlstate"),
    [
        (TransientFault("", sqlstate="40P01"), "transient", "40"),
        (SystemFault("", sqlstate="53300"), "system", "53"),
        (SystemFault(""), "system", "none"),
        (EventFault("", sqlstate="23503"), "event", "23"),
        (UnclassifiedFault("", sqlstate="P0001"), "unclassified", "other"),
        (RuntimeError(), "unclassified", "none"),
    ],
)
def test_a_fault_counts_by_its_kind_and_class_and_goes_on(
    error: Exception, kind: str, sqlstate: str
) -> None:
    metrics = WorkerMetrics()
    with pytest.raises(type(error)), metrics.database("confirm"):
        raise error

    assert metrics.faults == {(kind, sqlstate): 1}
    assert sum(metrics.database_seconds["confirm"].report()["counts"]) == 1


def test_whatever_code_a_server_makes_up_there_is_one_label_for_it() -> None:
    """An extension may raise any; each would be a time series of its own."""
    metrics = WorkerMetrics()
    for code in ("ZZ001", "QQ002", "", "9"):
        with pytest.raises(StoreError), metrics.database("probe"):
            raise UnclassifiedFault("", sqlstate=code)

    assert metrics.faults == {("unclassified", "other"): 4}
