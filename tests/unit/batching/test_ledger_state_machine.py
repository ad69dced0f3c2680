"""Any order of events, against a model of the tags that the broker holds as outstanding."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flashsale.batching import Ledger


class LedgerMachine(RuleBasedStateMachine):
    """The broker's side is `outstanding`; the workers' is `settled`."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.next_tag = 1
        self.outstanding: set[int] = set()
        self.settled: set[int] = set()
        self.acknowledged: set[int] = set()

    @property
    def open(self) -> set[int]:
        return self.outstanding - self.settled

    @rule(count=st.integers(1, 5))
    def deliver(self, count: int) -> None:
        tags = range(self.next_tag, self.next_tag + count)
        self.ledger.deliver(tags)
        self.outstanding.update(tags)
        self.next_tag += count

    @precondition(lambda self: self.next_tag > 1)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """With tags among them that were settled or given back before."""
        tags = data.draw(st.sets(st.integers(1, self.next_tag - 1), max_size=6))
        expected = self.open & tags
        assert self.ledger.settle(tags) == len(expected)
        self.settled |= expected

    @precondition(lambda self: self.next_tag > 1)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        tags = data.draw(st.sets(st.integers(1, self.next_tag - 1), max_size=3))
        expected = self.open & tags
        assert self.ledger.give_back(tags) == sorted(expected)
        self.outstanding -= expected

    @rule()
    def acknowledge(self) -> None:
        tag = self.ledger.acknowledge()
        first_open = min(self.open, default=self.next_tag)
        below = {each for each in self.outstanding if each < first_open}
        assert tag == max(below, default=None), "neither too far nor less than it could be"
        self._leave(below)

    @rule()
    def acknowledge_above_gaps(self) -> None:
        tags = self.ledger.acknowledge_above_gaps()
        assert tags == sorted(self.outstanding & self.settled)
        self._leave(set(tags))

    @invariant()
    def the_counts_agree(self) -> None:
        assert self.ledger.open_count == len(self.open)
        assert self.ledger.unacknowledged_count == len(self.outstanding & self.settled)

    def _leave(self, tags: set[int]) -> None:
        assert tags <= self.settled, "nothing is acknowledged that was not settled"
        assert not tags & self.acknowledged, "nothing is acknowledged twice"
        self.acknowledged |= tags
        self.outstanding -= tags


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(
    derandomize=True, deadline=None, max_examples=150, stateful_step_count=40
)
