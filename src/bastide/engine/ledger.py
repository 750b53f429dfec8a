"""The records of all containers: in memory and in the store, with their locks and those who wait on them."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from bastide.engine.events import Events
from bastide.engine.identity import Index
from bastide.engine.state import Store
from bastide.model.container import Container, State, Status
from bastide.model.errors import Conflict, NotFound


class Condition(enum.StrEnum):
    """What a caller of `wait` waits for."""

    NOT_RUNNING = "not-running"
    NEXT_EXIT = "next-exit"
    REMOVED = "removed"


class Waited(msgspec.Struct, frozen=True):
    """The answer of a wait: exit code, and what went wrong if the container never ran or has gone."""

    code: int
    error: str = ""


class Ledger:
    """One record a container. Every change goes through `save`, which is durable when it returns."""

    def __init__(self, store: Store, events: Events) -> None:
        self._table = store.table("containers", Container)
        self._events = events
        self._index = Index()
        self._locks: dict[str, asyncio.Lock] = {}
        self._waiters: dict[str, list[tuple[Condition, asyncio.Future[Waited]]]] = {}
        self._reserved: set[str] = set()
        for container in self._table.values():
            self._index.put(container)

    def find(self, reference: str) -> Container:
        """The container of a name, id or unique prefix. Raises NotFound, InvalidArgument."""
        return self._index.find(reference)

    def get(self, container_id: str) -> Container | None:
        """The record of a full id."""
        return self._table.get(container_id)

    def fresh(self, container: Container) -> Container:
        """The record as it is now. Raises NotFound when the container has gone meanwhile."""
        found = self._table.get(container.id)
        if found is None:
            raise NotFound(f"No such container: {container.name}")
        return found

    def all(self) -> list[Container]:
        """Every record."""
        return self._table.values()

    def lock(self, container: Container) -> asyncio.Lock:
        """The lock that every change of this container's life holds."""
        return self._locks.setdefault(container.id, asyncio.Lock())

    def names(self) -> set[str]:
        """All names that are taken or about to be."""
        return set(self._index.names()) | self._reserved

    def reserve(self, name: str) -> None:
        """Take a name before its container exists. Raises Conflict in Docker's words."""
        holder = self._index.named(name)
        if holder is not None or name in self._reserved:
            by = f' by container "{holder.id}"' if holder else ""
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use{by}. You have to remove '
                "(or rename) that container to be able to reuse that name."
            )
        self._reserved.add(name)

    def release(self, name: str) -> None:
        """Undo `reserve`."""
        self._reserved.discard(name)

    def save(self, container: Container) -> Container:
        """Write a record through to disk."""
        self._table.put(container.id, container)
        self._index.put(container)
        return container

    def _keep(self, container: Container) -> Container:
        """Save what has happened, on a full disk too."""
        self._table.keep(container.id, container)
        self._index.put(container)
        return container

    def change(self, container: Container, **fields: Any) -> Container:
        """Save the present record with other fields."""
        return self.save(msgspec.structs.replace(self.fresh(container), **fields))

    def change_state(self, container: Container, **fields: Any) -> Container:
        """Save the present record with other fields of its state."""
        present = self.fresh(container)
        return self._keep(msgspec.structs.replace(present, state=msgspec.structs.replace(present.state, **fields)))

    def forget(self, container: Container) -> None:
        """Delete a record and tell those who wait for its removal."""
        present = self._table.get(container.id) or container
        self._table.delete(container.id)
        self._index.discard(container.id)
        self._locks.pop(container.id, None)
        self.announce(container.id, set(Condition), Waited(present.state.exit_code))

    def waiter(self, reference: str, condition: Condition) -> asyncio.Future[Waited]:
        """A future of the container's end; it counts from now on, not from when it is awaited."""
        container = self.find(reference)
        future: asyncio.Future[Waited] = asyncio.get_running_loop().create_future()
        state = container.state
        if condition is Condition.NOT_RUNNING and not state.running and state.status is not Status.RESTARTING:
            future.set_result(Waited(state.exit_code))
            return future
        self._waiters.setdefault(container.id, []).append((condition, future))
        return future

    def announce(self, container_id: str, conditions: set[Condition], answer: Waited) -> None:
        """Answer those who wait for one of `conditions`."""
        kept = []
        for condition, future in self._waiters.pop(container_id, []):
            if condition not in conditions:
                kept.append((condition, future))
            elif not future.done():
                future.set_result(answer)
        if kept:
            self._waiters[container_id] = kept

    def event(self, container: Container, action: str, **attributes: str) -> None:
        """Publish an event of a container with the attributes that Docker gives it."""
        described = {
            **(container.config.labels or {}),
            "image": container.config.image,
            "name": container.name,
        }
        self._events.publish("container", action, container.id, described | attributes)


def command_text(words: Sequence[str]) -> str:
    """A command as the events of execs have it: Docker parts the program from its arguments, even from none."""
    return f"{words[0]} {' '.join(words[1:])}"


def require(container: Container, *allowed: Status, otherwise: Callable[[Container], Exception]) -> None:
    """Raise `otherwise(container)` unless the container is in one of the allowed states."""
    if container.state.status not in allowed:
        raise otherwise(container)


def not_running(container: Container) -> Conflict:
    """Docker's words for a call that needs a running container."""
    return Conflict(f"container {container.id} is not running")


def new_state(status: Status) -> State:
    """A state with nothing else said."""
    return State(status=status)
