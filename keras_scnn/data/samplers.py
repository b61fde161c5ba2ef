"""Samplers of training batches: random pairs, or several photos each of several people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from keras_scnn.settings import check_share, whole
from keras_scnn.storage.text import counted

NO_PHOTOS = np.empty(0, np.int64)


class Shard(NamedTuple):
    """The rows of each batch for one process: the ``rank``-th of ``world_size`` equal parts.

    All processes use the same seed, so that each draws the whole batch and loads its own rows; the
    rows of all ranks, concatenated, are the batch of a single-process run.
    """

    rank: int = 0
    world_size: int = 1

    def rows(self, count: int) -> slice:
        """This process's rows in a batch of ``count`` rows.

        Raises:
            ValueError: the rank is out of range, or the rows cannot be divided among the processes.
        """
        rank, size = self
        if not 0 <= rank < size:
            raise ValueError(f"rank is {rank}; it must lie in 0 to world_size - 1 ({size})")
        if count % size:
            raise ValueError(f"a batch of {count} rows cannot be divided among {size} processes")
        return slice(rank * count // size, (rank + 1) * count // size)


WHOLE = Shard()


def _whole_numbers(name: str, values, count: int | None = None) -> np.ndarray:
    """Check that values are (n,) whole numbers, n above 0, or equal to ``count`` if given."""
    array = np.asarray(values)
    if array.ndim != 1 or not len(array) or count not in (None, len(array)):
        wanted = "at least one number" if count is None else f"{count} numbers, one per photo"
        raise ValueError(f"{name} has the shape {array.shape}; it must be a list of {wanted}")
    if array.dtype.kind == "f" and (np.rint(array) == array).all() and np.isfinite(array).all():
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} has the dtype {array.dtype}; it must be whole numbers")
    return array


def _all_positive(numbers: np.ndarray) -> bool:
    return bool((numbers > 0).all() and np.isfinite(numbers).all())


def _positions(among, count: int) -> np.ndarray:
    """(k,) indices of some of ``count`` photos, given as indices or as a bool mask (count,)."""
    among = np.asarray(among)
    if among.dtype == bool and among.shape == (count,):
        among = np.flatnonzero(among)
    among = _whole_numbers("among", among)
    if among.min() < 0 or among.max() >= count:
        raise ValueError(f"among has {among.min()} to {among.max()}; photos are 0 to {count - 1}")
    given, times = np.unique(among, return_counts=True)
    if len(given) < len(among):
        raise ValueError(f"among has photo {given[times.argmax()]} more than once")
    return among


class PeopleIndex:
    """The n people of one or several data sets.

    Args:
        identity: (m,) int, the person of each photo.
        among: indices of the photos to draw from, or a bool mask (m,); None: all m.
        mirror: (m,) int, the identity of each photo's mirrored person, -1 for none; None: nobody
            has one. It suffices to give it for one of the two people.
        source: (m,) int, the index of each photo's data set; None: there is only one.
        source_weights: (S,) how often each data set is drawn from; None: by its number of people.

    Attributes:
        total: m.
        order: (k,) indices of the photos to draw from, person by person.
        starts, counts: (n,) where each person's photos begin in ``order``, and how many there are.
        twin: (n,) the number of the mirrored person, -1 for none.
        first, last: (S,) the people of data set s are first[s] to last[s] - 1; data sets without
            a photo to draw from are left out.
        weights: (S,) above 0, sum 1.

    Raises:
        ValueError: an array has another shape or has not only whole numbers, ``among`` is empty,
            out of range or has a photo twice, a person has photos in two data sets, or the weights
            are not S numbers above 0.
    """

    def __init__(self, identity, among=None, mirror=None, source=None, source_weights=None):
        identity = _whole_numbers("identity", identity)
        self.total = count = len(identity)
        among = np.arange(count) if among is None else _positions(among, count)
        source = np.zeros(count, int) if source is None else _whole_numbers("source", source, count)
        self._arrange(identity[among], source[among], among)
        self.twin = np.full(len(self.counts), -1)
        if mirror is not None:
            self._find_twins(identity, _whole_numbers("mirror", mirror, count))
        weights = self.last - self.first
        if source_weights is not None:
            weights = np.asarray(source_weights, np.float64)
            count = int(source.max()) + 1
            if weights.shape != (count,) or not _all_positive(weights):
                raise ValueError(f"source_weights: {weights}; it must be {count} numbers above 0")
            weights = weights[np.unique(source[among])]
        self.weights = weights / weights.sum()

    def _arrange(self, identity, source, among) -> None:
        order = np.lexsort((identity, source))
        self.order = among[order]
        identity, source = identity[order], source[order]
        is_first = np.r_[True, identity[1:] != identity[:-1]]
        if len(np.unique(identity)) != is_first.sum():
            raise ValueError("identity: a person has photos in two data sets; number them apart")
        self.starts = np.flatnonzero(is_first)
        self.counts = np.diff(np.r_[self.starts, len(identity)])
        self._home = np.unique(source[self.starts], return_inverse=True)[1]
        sources = np.arange(self._home[-1] + 1)
        self.first, self.last = (np.searchsorted(self._home, sources, s) for s in ("left", "right"))

    def _find_twins(self, identity, mirror) -> None:
        person = identity[self.order[self.starts]]
        wanted = mirror[self.order[self.starts]]
        by_identity = np.argsort(person)
        place = np.searchsorted(person[by_identity], wanted)
        nearest = by_identity[np.minimum(place, len(person) - 1)]
        self.twin = np.where((wanted >= 0) & (person[nearest] == wanted), nearest, -1)
        # If only one of the two people names the other, set the other's twin as well.
        named = np.flatnonzero(self.twin >= 0)
        alone = named[self.twin[self.twin[named]] < 0]
        self.twin[self.twin[alone]] = alone

    def draw_sources(self, rng: np.random.Generator, count: int, fit: np.ndarray) -> np.ndarray:
        """(count,) indices of data sets, drawn by weight from those that are ``fit``, (S,) bool."""
        weights = self.weights * fit
        return rng.choice(len(weights), count, p=weights / weights.sum())

    def count_by_source(self, people: np.ndarray) -> np.ndarray:
        """(S,) how many of the given people, (k,) ascending numbers, each data set has."""
        return np.bincount(self._home[people], minlength=len(self.first))

    def has_twins(self) -> np.ndarray:
        """(S,) bool: whether a data set has a person and that person's mirror image."""
        people = np.flatnonzero(self.twin >= 0)
        people = people[self._home[people] == self._home[self.twin[people]]]
        return self.count_by_source(people) > 0

    def draw_people(
        self, rng: np.random.Generator, sources: np.ndarray, among: np.ndarray
    ) -> np.ndarray:
        """A person for each of (k,) data sets, uniformly from the ascending numbers ``among``."""
        low = np.searchsorted(among, self.first)[sources]
        high = np.searchsorted(among, self.last)[sources]
        return among[rng.integers(low, high)]

    def draw_others(self, rng: np.random.Generator, people: np.ndarray) -> np.ndarray:
        """A different person from the same data set for each of (k,) people; never its twin."""
        home, twin = self._home[people], self.twin[people]
        low, size = self.first[home], (self.last - self.first)[home]
        has_twin = (low <= twin) & (twin < low + size) & (twin != people)
        # A random step around the circle of people that skips the twin: all others are equally
        # likely.
        step = rng.integers(1, size - has_twin)
        step += has_twin & (step >= (twin - people) % size)
        return low + (people - low + step) % size

    def photos(self, people: np.ndarray, number: np.ndarray) -> np.ndarray:
        """(k,) index of each person's ``number``-th photo."""
        return self.order[self.starts[people] + number]


class PairBatch(NamedTuple):
    """A batch of pairs.

    Attributes:
        first: (B,) int64 indices of photos.
        second: (B,) int64 indices of photos.
        same: (B,) bool, whether both show the same person.
    """

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray


class GroupBatch(NamedTuple):
    """A batch of several photos each of several people.

    Attributes:
        photo: (B,) int indices of photos, person by person.
        person: (B,) identity of each, in the dtype of the sampler's ``identity``.
    """

    photo: np.ndarray
    person: np.ndarray


class PairSampler:
    """Random pairs, a pure function of seed and step.

    People are drawn uniformly, however many photos they have, and then photos of them: two
    different photos of one person, or one of each of two people. The batch of any step can be
    drawn at any time, so a resumed run continues the same stream, and the processes of a
    distributed run each take their ``Shard`` of the same batch.

    Args:
        identity: (n,) int, the person in each photo.
        p_same: probability that a pair shows one person (0.4: as the paper's authors trained).
        seed: the same seed gives the same stream.
        people: further arguments of ``PeopleIndex``: ``among``, the indices of the photos to draw
            from; ``mirror``: a person and its mirror image never form a pair; ``source`` and
            ``source_weights``: both photos of a pair are from the same data set.

    Raises:
        ValueError: an argument is out of range, nobody has two photos (for p_same above 0), or
            no data set has enough people (for p_same below 1): two, or three if one is the mirror
            image of another.
    """

    def __init__(self, identity, p_same=0.4, seed=0, **people):
        check_share("p_same", p_same)
        self._people = PeopleIndex(identity, **people)
        self._all = np.arange(len(self._people.counts))
        self._several = np.flatnonzero(self._people.counts > 1)
        least = np.where(self._people.has_twins(), 3, 2)
        self._has_pairs = self._people.count_by_source(self._several) > 0
        self._has_others = self._people.count_by_source(self._all) >= least
        if p_same > 0 and not self._has_pairs.any():
            raise ValueError("identity: nobody has two photos; pairs of one person need them")
        if p_same < 1 and not self._has_others.any():
            count = self._people.count_by_source(self._all)
            nearest = int(np.argmin(least - count))
            raise ValueError(
                "identity: no data set has enough people; the nearest has "
                f"{counted(int(count[nearest]), 'person')}; pairs of two people need "
                f"{least[nearest]}" + " (two are mirror images)" * int(least[nearest] == 3)
            )
        self._p_same, self._seed = p_same, whole("seed", seed, 0)

    @property
    def total(self) -> int:
        """Number of photos, n."""
        return self._people.total

    def batch(self, step: int, size: int) -> PairBatch:
        """The ``size`` pairs of a step; steps count from 0."""
        rng = np.random.default_rng([self._seed, step])
        same = rng.random(size) < self._p_same
        first, second = np.empty((2, len(same)), np.int64)
        first[same], second[same] = self._same(rng, same.sum())
        first[~same], second[~same] = self._different(rng, (~same).sum())
        return PairBatch(first, second, same)

    def _same(self, rng, count: int) -> tuple[np.ndarray, np.ndarray]:
        if not count:
            return NO_PHOTOS, NO_PHOTOS
        sources = self._people.draw_sources(rng, count, self._has_pairs)
        person = self._people.draw_people(rng, sources, self._several)
        counts = self._people.counts[person]
        one = rng.integers(counts)
        two = (one + rng.integers(1, counts)) % counts
        return self._people.photos(person, one), self._people.photos(person, two)

    def _different(self, rng, count: int) -> tuple[np.ndarray, np.ndarray]:
        if not count:
            return NO_PHOTOS, NO_PHOTOS
        sources = self._people.draw_sources(rng, count, self._has_others)
        one = self._people.draw_people(rng, sources, self._all)
        two = self._people.draw_others(rng, one)
        counts = self._people.counts
        first, second = (self._people.photos(p, rng.integers(counts[p])) for p in (one, two))
        return first, second


class GroupSampler:
    """K photos each of P different people, a pure function of seed and step.

    All pairs in the batch can be compared: a person and its mirror image are never in one batch.
    People are drawn uniformly from those with at least two photos, or one if K is 1; of a person
    with fewer than K photos, some are repeated.

    Args:
        identity: (n,) int, the person in each photo.
        people: P.
        photos: K.
        emphasis: (n,) above 0, how often a person is drawn compared with others of the same data
            set: the mean over the person's photos counts; None: all equally often. Nobody is in a
            batch twice, so if P is a large share of the people, this and ``source_weights`` have
            less effect.
        seed, options: as for ``PairSampler``.

    Raises:
        ValueError: an argument is out of range, or there are too few people.
    """

    def __init__(
        self,
        identity,
        people=16,
        photos=4,
        emphasis=None,
        seed=0,
        **options,
    ):
        people, photos = whole("people", people), whole("photos", photos)
        seed = whole("seed", seed, 0)
        self._identity, self._index = np.asarray(identity), PeopleIndex(identity, **options)
        self._least = min(photos, 2)
        several = np.flatnonzero(self._index.counts >= self._least)
        # A person and its mirror image are one choice, so that both are never drawn together.
        twin = self._index.twin[several]
        self._choices = several[~(np.isin(twin, several) & (twin < several))]
        if len(self._choices) < people:
            raise ValueError(
                f"identity: {counted(len(self._choices), 'person')} with "
                f"{counted(self._least, 'photo')} or more (mirrored ones not counted); a batch "
                f"needs {people}"
            )
        self._people, self._photos, self._seed = people, photos, seed
        self._chance = self._chances(emphasis)

    def _chances(self, emphasis) -> np.ndarray:
        """(c,) the probability of each choice, by the weights of data sets and the emphasis."""
        index, wanted = self._index, np.ones(len(self._choices))
        if emphasis is not None:
            emphasis = np.asarray(emphasis, np.float64)
            if emphasis.shape != self._identity.shape or not _all_positive(emphasis):
                raise ValueError(
                    f"emphasis: {len(self._identity)} numbers above 0 are needed, one per photo"
                )
            total = np.add.reduceat(emphasis[index.order], index.starts)
            wanted = (total / index.counts)[self._choices]
        counts = index.count_by_source(self._choices)
        home = np.repeat(np.arange(len(counts)), counts)
        met = np.bincount(home, wanted, minlength=len(counts))
        chance = wanted * (index.weights / np.maximum(met, 1e-12))[home]
        return chance / chance.sum()

    @property
    def total(self) -> int:
        """Number of photos, n."""
        return self._index.total

    def batch(self, step: int) -> GroupBatch:
        """The batch of a step; steps count from 0."""
        rng, count = np.random.default_rng([self._seed, step]), self._people
        person = rng.choice(self._choices, count, replace=False, p=self._chance)
        twin = self._index.twin[person]
        swap = (twin >= 0) & (rng.random(count) < 0.5) & (self._index.counts[twin] >= self._least)
        person = np.where(swap, twin, person)
        # K photos from shuffled passes over the person's photos, as many passes as it takes.
        counts = self._index.counts[person]
        number = np.stack([self._numbers(rng, n) for n in counts])
        photo = self._index.photos(person[:, None], number)
        photo = photo.ravel()
        return GroupBatch(photo, self._identity[photo])

    def _numbers(self, rng, count: int) -> np.ndarray:
        rounds = -(-self._photos // count)
        return np.concatenate([rng.permutation(count) for _ in range(rounds)])[: self._photos]


class JoinedSampler:
    """The joined batches of several samplers, such as groups of some people and photos of others.

    Args:
        samplers: each a ``GroupSampler`` over the same identities. If they draw from different data
            sets, nobody is in a batch twice, or together with their mirror image.

    Raises:
        ValueError: there is none, or their numbers of photos differ.
    """

    def __init__(self, samplers: Sequence[GroupSampler]):
        self._samplers = list(samplers)
        totals = {sampler.total for sampler in self._samplers}
        if len(totals) != 1:
            of = " and ".join(map(str, sorted(totals))) or "no"
            raise ValueError(f"samplers have {of} photos; give some over the same identities")

    @property
    def total(self) -> int:
        """Number of photos, n."""
        return self._samplers[0].total

    def batch(self, step: int) -> GroupBatch:
        """The samplers' batches of a step, concatenated."""
        parts = [sampler.batch(step) for sampler in self._samplers]
        return GroupBatch(*(np.concatenate(part) for part in zip(*parts, strict=True)))
