"""Virtual time: a heap of events, one seeded source of chance, and turns for every process."""

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable
from random import Random

START_S = 1_000.0
START_WALL_NS = 1_700_000_000 * 10**9
NEVER = float("inf")


class World:
    """
    The clock, the scheduler and the record of one run.

    Attributes:
        now: Seconds of the monotonic clock, which all machines share.
        random: The only source of chance.
        wall_step_ns: How far the wall clock of our machine has been set.
        asleep_until: Our machine is suspended until then.
        seen: How often each fault and each recovery path happened.
        last: The last events, for the report of a failure.
    """

    def __init__(self, seed: int) -> None:
        self.now = START_S
        self.random = Random(seed)
        self.wall_step_ns = 0
        self.asleep_until = 0.0
        self.seen: Counter[str] = Counter()
        self.last: deque[str] = deque(maxlen=60)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, when: float, callback: Callable[[], None]) -> None:
        """Call back at a time."""
        heapq.heappush(self._events, (max(when, self.now), next(self._order), callback))

    def after(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Call back after a delay."""
        self.at(self.now + delay_s, callback)

    def run_until(self, end: float, after_step: Callable[[], None] = lambda: None) -> None:
        """Run all events up to a time, and ``after_step`` after each of them."""
        while self._events and self._events[0][0] <= end:
            self.now, _, callback = heapq.heappop(self._events)
            callback()
            after_step()
        self.now = end

    def exchange_ms(self) -> int:
        """The exchange's wall clock, which is never set."""
        return (START_WALL_NS + int(self.now * 1e9)) // 1_000_000

    def note(self, text: str) -> None:
        """Record an event for the report of a failure."""
        self.last.append(f"{self.now - START_S:9.4f}  {text}")

    def saw(self, what: str, where: str = "") -> None:
        """Count a fault or a recovery path, and record it."""
        self.seen[what] += 1
        self.note(f"{what} {where}")


class MachineClock:
    """The clocks of our machine."""

    def __init__(self, world: World) -> None:
        self._world = world

    def time_ns(self) -> int:
        return START_WALL_NS + int(self._world.now * 1e9) + self._world.wall_step_ns

    def monotonic(self) -> float:
        return self._world.now


class Process:
    """What the threads of one process share: it hangs and dies as a whole."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.hung_until = 0.0
        self.turn_s = 0.0
        """How long a turn takes: a slow process."""


class Thread:
    """
    One schedulable unit: gets a turn when it is woken.

    Args:
        world: The scheduler.
        process: Its process.
        turn: Does what is to do.
        next_due: When the next turn is due.
    """

    def __init__(
        self,
        world: World,
        process: Process,
        turn: Callable[[], None],
        next_due: Callable[[], float],
    ) -> None:
        self.process = process
        self._world = world
        self._turn = turn
        self._next_due = next_due
        self._due = NEVER
        self._busy_until = 0.0

    def wake(self, when: float) -> None:
        """Make a turn due at a time, unless one is due earlier."""
        when = max(when, self._world.now)
        if when < self._due:
            self._due = when
            self._world.at(when, self._fire)

    def _fire(self) -> None:
        world, process = self._world, self.process
        if world.now != self._due or process.is_dead:
            return
        self._due = NEVER
        free_at = max(process.hung_until, world.asleep_until, self._busy_until)
        if world.now < free_at:
            self.wake(free_at)
            return
        self._turn()
        if process.is_dead:
            return
        self._busy_until = world.now + process.turn_s
        self.wake(max(self._next_due(), world.now + 1e-6))
