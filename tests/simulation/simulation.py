"""The story of one seed: who does what next, until all is done."""

from __future__ import annotations

import random
from collections.abc import Callable

from flashsale.batching import Letter
from tests.simulation.clock import Clock
from tests.simulation.invariants import (
    Violation,
    check_ack,
    check_end,
    check_letter,
    check_outcome,
    check_step,
    check_turn,
)
from tests.simulation.process import Process
from tests.simulation.rabbitmq import Rabbit
from tests.simulation.store import Fault, Health, Store

_STEPS = (100, 220)
_EVENTS = (20, 60)
_ROUNDS_TO_DRAIN = 120
_KINDS = ("good",) * 12 + ("refused", "unreadable", "hopeless")
_REPEATED = 0.05


class Simulation:
    """Faults for a while, then none, until the queue is empty. :meth:`run` raises a Violation.

    Each seed has its own weather: about half of the faults, so that runs differ in kind and rare
    sequences are not drowned by frequent ones.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.clock = Clock()
        self.rabbit = Rabbit(on_ack=self._see_ack)
        self.store = Store()
        self.trace: list[tuple[object, ...]] = []
        self.published: set[bytes] = set()
        self._started = 0
        self.processes = [self._start() for _ in range(self.random.randint(2, 3))]
        self._unpublished = self._events(self.random.randint(*_EVENTS))
        weights = self._weather()
        self._actions, self._weights = list(weights), list(weights.values())

    def run(self) -> None:
        random.seed(self.seed)  # the jitter of backoffs
        steps = self.random.randint(*_STEPS)
        for action in self.random.choices(self._actions, self._weights, k=steps):
            process = self.random.choice(self.processes)
            action(process)
            check_step(process, self.rabbit)
        self._end_faults()
        self._drain()
        check_outcome(self.published, self.store, self.rabbit)

    # What can happen

    def _weather(self) -> dict[Callable[[Process], None], float]:
        course = {
            self._poll: 30,
            self._execute: 20,
            self._report: 20,
            _anywhere(self._pass_time): 9,
            _anywhere(self._publish): 6,
            self._write_letters: 4,
            self._confirm_letters: 4,
            self._close: 3,
            _anywhere(self._mend_store): 3,
            _anywhere(self._mend_rabbit): 3,
        }
        faults = {
            self._execute_with_fault: 8,
            self._lose_confirms: 1,
            self._cut: 3,
            self._kill: 2,
            self._drain_one: 2,
            _anywhere(self._break_store): 2,
            _anywhere(self._break_rabbit): 1,
        }
        return course | {fault: w for fault, w in faults.items() if self.random.random() < 0.5}

    def _events(self, count: int) -> list[bytes]:
        events = [f"{self.random.choice(_KINDS)}-{number}".encode() for number in range(count)]
        again = [event for event in events if self.random.random() < _REPEATED]
        return again + events[::-1]  # they are taken from the end

    def _publish(self) -> None:
        for _ in range(min(len(self._unpublished), self.random.randint(1, 12))):
            self._publish_one(self._unpublished.pop())

    def _publish_one(self, event: bytes) -> None:
        self.published.add(event)
        self.rabbit.publish(event)
        self._note("publish", event.decode())

    def _poll(self, process: Process) -> None:
        channel = process.transport.channel
        arrived = channel.deliver(self.random.randint(0, 8)) if channel else 0
        message = process.poll()
        check_turn(process)
        self._note(process.name, "polls:", arrived, "arrived, got", message and message.args[0])

    def _execute(self, process: Process, fault: Fault | None = None) -> None:
        if process.running:
            if self.random.random() < 0.3:
                process.running.rotate(-1)
            size = process.execute(fault)
            words = fault.value if fault else "meets no fault"
            self._note(process.name, "runs a batch of", size, "which", words)

    def _execute_with_fault(self, process: Process) -> None:
        self._execute(process, self.random.choice(list(Fault)))

    def _report(self, process: Process) -> None:
        if process.executed:
            size = process.report(newest=self.random.random() < 0.3)
            self._note(process.name, "hands back a batch of", size)

    def _pass_time(self) -> None:
        seconds = self.random.choice((0.01, 0.1, 0.5, 1.5, 4.0))
        self.clock.advance(seconds)
        self._note("pass", seconds, "s")

    def _write_letters(self, process: Process) -> None:
        process.transport.write_letters(self.random.randint(1, 3))
        self._note(process.name, "has dead letters written")

    def _confirm_letters(self, process: Process) -> None:
        process.transport.confirm_letters(self.random.randint(1, 3))
        self._note(process.name, "has dead letters confirmed")

    def _lose_confirms(self, process: Process) -> None:
        process.transport.lose_confirms()
        self._note(process.name, "loses its confirms")

    def _cut(self, process: Process) -> None:
        if process.transport.channel is not None:
            process.transport.channel.cut(lose_acks=self.random.random() < 0.5)
            self._note(process.name, "has its channel cut")

    def _kill(self, process: Process) -> None:
        process.kill(lose_acks=self.random.random() < 0.5)
        self._note(process.name, "is killed")
        self._replace(process)

    def _drain_one(self, process: Process) -> None:
        process.drain()
        self._note(process.name, "drains")

    def _close(self, process: Process) -> None:
        if not process.draining:
            return
        process.transport.finishes = self.random.random() < 0.5
        process.close()
        self._note(process.name, "closes")
        check_end(process)
        self._replace(process)

    def _break_store(self) -> None:
        self.store.health = self.random.choice((Health.DOWN, Health.FULL))
        self._note("the store is", self.store.health.value)

    def _mend_store(self) -> None:
        self.store.health = Health.UP
        self._note("the store is up")

    def _break_rabbit(self) -> None:
        self.rabbit.go_down()
        self._note("RabbitMQ is down")

    def _mend_rabbit(self) -> None:
        self.rabbit.is_up = True
        self._note("RabbitMQ is up")

    def _start(self) -> Process:
        self._started += 1
        process = Process(f"P{self._started}", self.rabbit, self.store, self.clock)
        process.transport.on_letter = lambda letter: self._see_letter(process, letter)
        return process

    def _replace(self, process: Process) -> None:
        self.processes[self.processes.index(process)] = self._start()

    # How it ends

    def _end_faults(self) -> None:
        self._note("faults end")
        self._mend_store()
        self._mend_rabbit()
        for process in [process for process in self.processes if process.draining]:
            self._close(process)
        while self._unpublished:
            self._publish()

    def _drain(self) -> None:
        """Let all work go on undisturbed, some new events with it, until nothing is left."""
        for number in range(_ROUNDS_TO_DRAIN):
            if not self.rabbit.ready and not self.rabbit.unacknowledged:
                return
            for process in self.processes:
                if number % 4 == 3:
                    # Given up is only what fails while others succeed, so there have to be others.
                    self._publish_one(f"good-later-{number}-{process.name}".encode())
                self._work_undisturbed(process)
            self.clock.advance(0.5)
        raise Violation(
            f"{self.rabbit.unacknowledged} deliveries are still open, and {len(self.rabbit.ready)}"
            " ready, long after the last fault"
        )

    def _work_undisturbed(self, process: Process) -> None:
        if process.transport.channel is not None:
            process.transport.channel.deliver(process.limits.prefetch // len(self.processes))
        process.poll()
        while process.running:
            process.execute()
        while process.executed:
            process.report()
        process.transport.write_letters()
        process.transport.confirm_letters()
        check_step(process, self.rabbit)

    # What is seen on the way

    def _see_ack(self, body: bytes) -> None:
        self._note("acknowledged:", body.decode())
        check_ack(body, self.store, self.rabbit)

    def _see_letter(self, process: Process, letter: Letter) -> None:
        reason = letter.rejection.reason
        self._note(process.name, "dead-letters", letter.delivery.body.decode(), "as", reason)
        check_letter(process, letter)

    def _note(self, *words: object) -> None:
        self.trace.append((self.clock.now, *words))


def _anywhere(action: Callable[[], None]) -> Callable[[Process], None]:
    """An action that is no process's own."""
    return lambda _process: action()
