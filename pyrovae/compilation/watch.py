"""What functions can read from Python, as one key: equal keys lead to the same recorded step."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, zip_longest

from torch import Tensor, nn

from pyrovae import private
from pyrovae.compilation.walk import MISSING, OF_MODULES, Namespace, Walk

__all__ = ["Watch", "layout"]

_requires_grad = operator.attrgetter("requires_grad")


def layout(x: Tensor) -> tuple[object, ...]:
    """What a recorded step depends on of a tensor, apart from its values."""
    kind = Tensor if isinstance(x, private.FakeTensor) else type(x)
    return x.shape, x.dtype, x.device, x.stride(), x.requires_grad, kind


class Watch:
    """The key of what ``roots`` can read, with a fast test of whether it is still the same.

    Args:
        roots: Functions and objects, by the names that messages give them.
        entries: Name, dictionary and key of further values, such as parameters in Pyro's store.
        ignore: Attributes and variables that are not followed, by their names.

    Attributes: ``key``, equal for states that lead to the same recorded step; ``tensors``, those that were met, in the
        order of the walk; ``swaps``, how often some of them were replaced; ``opaque``, the reason by the name of what
        cannot be followed; ``hooked``, modules with hooks; ``moving``, iterators, which a recording would move on.
    """

    def __init__(
        self,
        roots: Mapping[str, object],
        entries: Iterable[tuple[str, Namespace, object]] = (),
        ignore: frozenset[str] = frozenset(),
    ) -> None:
        self._given = roots, list(entries), ignore
        walk = self._walk = Walk(*self._given)
        self.opaque, self.hooked, self.moving, self.tensors = walk.opaque, walk.hooked, walk.moving, walk.tensors
        self.swaps = 0
        self.key = (tuple(walk.parts), tuple(map(layout, self.tensors)))
        singles = [(container, (key,)) for (_, key), container in walk.entries.items()]
        self._getters = [
            (operator.itemgetter(*(keys * 2 if len(keys) == 1 else keys)), container)  # of one key it gives no tuple
            for container, keys in (*walk.dicts, *singles)
            if keys
        ]
        self._sized = [*(container for container, _ in walk.dicts), *walk.lists]
        self._lengths = list(map(len, self._sized))
        self._values = list(self._now())
        self._types = list(map(type, walk.objects))
        self._contents = [array.tobytes() for array in walk.arrays]
        self._is_fake = any(isinstance(x, private.FakeTensor) for x in self.tensors)  # a walk after a recording
        self._memory = self._memory_now()

    def same(self) -> bool:
        """Whether every value is the object that it was, and every tensor has the layout that it had.

        A tensor in place of another of its layout, such as the next minibatch, is followed, and counted in ``swaps``.
        """
        try:
            return (
                list(map(len, self._sized)) == self._lengths
                and (all(map(operator.is_, self._now(), self._values)) or self._swap(list(self._now())))
                and any(self._walk.hooks) == bool(self.hooked)
                and list(map(type, self._walk.objects)) == self._types
                and self._memory_now() == self._memory
                and [array.tobytes() for array in self._walk.arrays] == self._contents
            )
        except (KeyError, ValueError, AttributeError, RuntimeError):  # it is gone, or changes size in another thread
            return False

    def _swap(self, now: list[object]) -> bool:
        """Put new tensors in place of old ones, if nothing else is new and which names stand for one is as before."""
        swapped: dict[int, Tensor] = {}
        for new, old in zip(now, self._values, strict=True):
            if new is not old and not (
                type(new) is type(old) is Tensor
                and id(old) in self._walk.seen
                and id(new) not in self._walk.seen
                and new.is_leaf
                and layout(new) == layout(old)
                and swapped.setdefault(id(old), new) is new
            ):
                return False
        if not swapped.keys().isdisjoint(map(id, now)) or len({*map(id, swapped.values())}) < len(swapped):
            return False
        for was, new in swapped.items():
            i, num = self._walk.seen.pop(was), len(self.tensors)
            self._walk.seen[id(new)], self.tensors[i] = i, new
            self._memory[i::num] = [new.data_ptr(), new.size(), new.stride(), new.requires_grad]
        self._values = now
        self.swaps += 1
        return True

    @property
    def recurs(self) -> bool:
        """Whether a recurrent layer is among what was met, whose loop is thousands of operations to compile."""
        return any(isinstance(value, nn.RNNBase) for value in self._walk.objects)

    def difference(self, other: Watch) -> str:
        """The name of the first thing that differs in another watch of the same roots."""
        for mine, theirs in zip_longest(self._walk.parts, other._walk.parts):
            if mine is None or theirs is None or mine != theirs:
                return (theirs or mine)[0]
        layouts = zip(self._walk.tensor_names, self.key[1], other.key[1], strict=True)
        return next((name for name, mine, theirs in layouts if mine != theirs), "hooks")

    def put_back(self) -> str | None:
        """Undo what has replaced, added or removed values since; the name of one of them, if there were any."""
        if self.same():
            return None
        now = Watch(*self._given)
        if now.key == self.key:
            return None
        left = iter(self._values)
        dicts = [*self._walk.dicts, *((container, (key,)) for (_, key), container in self._walk.entries.items())]
        for i, (container, keys) in enumerate(dicts):
            values = [next(left) for _ in (keys * 2 if len(keys) == 1 else keys)][: len(keys)]
            if not isinstance(container, dict):
                continue  # the namespace of a class cannot be written to
            if i < len(self._walk.dicts) and len(container) != self._lengths[i]:
                for key in container.keys() - set(keys) - OF_MODULES:
                    del container[key]
            for key, value in zip(keys, values, strict=True):
                if container.get(key, MISSING) is not value:
                    container[key] = value
        for items, length in zip(self._walk.lists, self._lengths[len(self._walk.dicts) :], strict=True):
            before = [next(left) for _ in range(length)]
            if list(map(id, items)) != list(map(id, before)):
                items.clear()
                (items.update if isinstance(items, set) else items.extend)(before)
        for owner, attribute in self._walk.attributes:
            if getattr(owner, attribute) is not (value := next(left)):
                setattr(owner, attribute, value)
        return self.difference(now)

    def _now(self) -> Iterator[object]:
        """Every value that may be replaced, in a fixed order."""
        return chain(
            chain.from_iterable([get(container) for get, container in self._getters]),
            chain.from_iterable(self._walk.lists),
            [getattr(owner, attribute) for owner, attribute in self._walk.attributes],
            chain.from_iterable(self._walk.orders),
        )

    def _memory_now(self) -> list[object]:
        """Where the tensors are in memory, and how."""
        x = self.tensors
        if self._is_fake:
            return []
        return [*map(Tensor.data_ptr, x), *map(Tensor.size, x), *map(Tensor.stride, x), *map(_requires_grad, x)]
