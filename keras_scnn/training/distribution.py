"""Where a run trains: on one device, several devices of one host, or several hosts; see ``Group``.

On JAX a batch is one array over all devices, which run one compiled program: losses over all pairs,
batch norm and the gradients' norm are those of the whole batch without further work. On TensorFlow,
which supports several devices of one host, ``training.mirrored`` ensures this. The network that is
trained is a copy, laid out over the devices; the one that is saved and measured stays on this
process's first device.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NoReturn

import keras
import numpy as np

from keras_scnn.data.replicas import device_names, mirrored_strategy
from keras_scnn.data.samplers import WHOLE, Shard
from keras_scnn.settings import FAILURE
from keras_scnn.training.config import TrainConfig
from keras_scnn.training.digests import group_facts
from keras_scnn.training.mirrored import mirror
from keras_scnn.training.rendezvous import rendezvous

HEARTBEAT, SHUTDOWN, GRACE = 30, 5, 3.0  # seconds
FAILED = "keras_scnn/failed/"
AGAIN = "start all ranks again: they continue from the last checkpoint"
LOST = f"the other processes were lost: one has ended, or does not respond; {AGAIN}"
# What JAX raises when a connection breaks; UNKNOWN and INTERNAL may also come from the own device.
STATUS = re.compile(
    r"(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED): |(UNKNOWN|INTERNAL|FAILED_PRECONDITION): "
    r".*(gloo|nccl|connection|socket|heartbeat|peer|coordinat)",
    re.IGNORECASE,
)
Make = Callable[..., keras.Model]


class Group:
    """The processes and devices that train one network; this class: one process on one device.

    Attributes:
        shard: this process's part of each batch.
    """

    shard: Shard = WHOLE

    @property
    def is_first(self) -> bool:
        """Whether this process saves, prints and measures."""
        return self.shard.rank == 0

    def scope(self) -> contextlib.AbstractContextManager:
        """In the block, variables are created on all devices and batches are divided among them."""
        return contextlib.nullcontext()

    def laid_out(self, make: Make) -> keras.Model:
        """A network with its variables, the optimizer's too, on all devices.

        Args:
            make: builds and compiles it; takes an optional function to apply before compiling.
        """
        with self.scope():
            return _built(make())

    def local(self) -> contextlib.AbstractContextManager:
        """In the block, within ``scope``, this process computes on its own."""
        return contextlib.nullcontext()

    def in_turn(self, what: str) -> contextlib.AbstractContextManager:
        """The first process runs the block, then all others at the same time; ``what`` names it."""
        return contextlib.nullcontext()

    def broadcast(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The first process's arrays, in every process."""
        return list(arrays)

    def all_max(self, values: Sequence[int]) -> list[int]:
        """The maximum of each value over all processes."""
        return list(values)


ALONE = Group()


class Replicas(Group):
    """Several devices of this process, on TensorFlow.

    Args:
        devices: names as returned by ``device_names``.
    """

    def __init__(self, devices: Sequence[str]):
        self._strategy = mirrored_strategy(devices)

    def laid_out(self, make: Make) -> keras.Model:
        with self._strategy.scope():
            return _built(make(mirror))


class Devices(Group):
    """Several devices of this process.

    Args:
        devices: names as returned by ``keras.distribution.list_devices``.
    """

    def __init__(self, devices: Sequence[str]):
        self._layout = keras.distribution.DataParallel(
            devices=list(devices), auto_shard_dataset=False
        )

    def scope(self) -> contextlib.AbstractContextManager:
        return _distribution(self._layout)

    def local(self) -> contextlib.AbstractContextManager:
        return _distribution(None)


class Hosts(Devices):
    """The devices of several connected processes.

    Args:
        shard: rank and number of processes. devices: of all of them.
        connection: to the coordinator.
    """

    def __init__(self, shard: Shard, devices: Sequence[str], connection: CoordinatorClient):
        super().__init__(devices)
        self.shard, self._connection = shard, connection

    @contextlib.contextmanager
    def in_turn(self, what: str) -> Iterator[None]:
        if not self.is_first:
            self._connection.wait_for(what, 0)
        yield
        self._connection.barrier(what)

    def broadcast(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        from jax.experimental import multihost_utils

        with self.local():
            return [np.asarray(a) for a in multihost_utils.broadcast_one_to_all(list(arrays))]

    def all_max(self, values: Sequence[int]) -> list[int]:
        from jax.experimental import multihost_utils

        with self.local():
            every = multihost_utils.process_allgather(np.array(values, np.int32))
        return np.max(every, axis=0).tolist()


@dataclass(frozen=True)
class Trainee:
    """A network and the copy of it that is trained; on one device, the network itself.

    Attributes:
        kept: compiled; on this process's first device; saved and measured.
        trained: compiled; laid out over the devices of a group.
    """

    kept: keras.Model
    trained: keras.Model

    @classmethod
    def of(cls, kept: keras.Model, group: Group, copy: Make) -> Trainee:
        """Lay out a copy with the first process's state: weights, optimizer, random numbers.

        Args:
            kept: compiled. group: trains the copy.
            copy: builds and compiles the same network again; see ``make`` of ``Group.laid_out``.
        """
        _built(kept)
        trained = group.laid_out(copy)
        _assign(trained, group.broadcast([np.asarray(v) for v in _variables(kept)]))
        return cls(kept, trained)

    def synced(self) -> keras.Model:
        """``kept``, with the current state of ``trained``."""
        if self.kept is not self.trained:
            if keras.backend.backend() == "jax":
                self.trained.jax_state_sync()
            _assign(self.kept, [np.asarray(v) for v in _variables(self.trained)])
        return self.kept


def _variables(network: keras.Model) -> list[keras.Variable]:
    return [*network.variables, *network.optimizer.variables]


def _built(network: keras.Model) -> keras.Model:
    """The network, with the variables of its optimizer created."""
    if not network.optimizer.built:
        network.optimizer.build(network.trainable_variables)
    return network


def _assign(network: keras.Model, values: Sequence[np.ndarray]) -> None:
    for variable, value in zip(_variables(network), values, strict=True):
        variable.assign(value)


@contextlib.contextmanager
def _distribution(layout: keras.distribution.DataParallel | None) -> Iterator[None]:
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(layout)
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


@contextlib.contextmanager
def join_group(config: TrainConfig) -> Iterator[Group]:
    """The group that the settings ask for, connected while the block runs.

    An error in the block ends the other processes too, within seconds and with a line that gives
    the reason; they also end if a process ends without reporting an error.

    Raises:
        ValueError: the backend does not support it, there are too few devices, a batch cannot be
            divided among them, or the processes differ (see ``rendezvous``).
        OSError: a process did not connect in time, or the coordinator's port is in use.
    """
    if config.devices == "1" and config.hosts == 1:
        yield ALONE
        return
    check_distributed_backend(config)
    if config.hosts == 1:
        devices = choose_devices(config)
        kind = Devices if keras.backend.backend() == "jax" else Replicas
        yield kind(devices) if len(devices) > 1 else ALONE
        return
    facts = group_facts(config)
    place = config.rank, config.hosts, config.coordinator
    rendezvous(*place, facts, config.join_seconds)
    with CoordinatorClient(*place, config.join_seconds).open() as connection:
        yield Hosts(Shard(config.rank, config.hosts), choose_devices(config), connection)


def check_distributed_backend(config: TrainConfig) -> None:
    """Raise a ValueError if Keras's backend cannot train on several devices, or several hosts."""
    backend = keras.backend.backend()
    if backend == "jax" or backend == "tensorflow" and config.hosts == 1:
        return
    what = "several hosts need" if config.hosts > 1 else "several devices need TensorFlow or"
    raise ValueError(
        f"{what} JAX as Keras's backend, which is {backend}: set KERAS_BACKEND=jax "
        "(docs/distributed.md)"
    )


def choose_devices(config: TrainConfig) -> list[str]:
    """The first devices of each process, process by process.

    Raises:
        ValueError: a process has too few, or a batch cannot be divided among all of them.
    """
    every = _jax_devices(config) if keras.backend.backend() == "jax" else [device_names()]
    least = min(map(len, every))
    wanted = least if config.devices == "all" else int(config.devices)
    if wanted > least:
        raise ValueError(f"devices is {wanted}; Keras's backend has {least} here")
    if config.devices == "all" and max(map(len, every)) > least:
        counts = ", ".join(str(len(one)) for one in every)
        raise ValueError(f"the hosts have {counts} devices: give --devices {least}, or 1")
    devices = [name for one in every for name in one[:wanted]]
    for rows, parts in config.batch_rows():
        if rows % (parts * len(devices)):
            inner = f", each in {parts} parts" if parts > 1 else ""
            raise ValueError(
                f"a batch of {rows} rows cannot be divided among {len(devices)} devices{inner}"
            )
    return devices


def _jax_devices(config: TrainConfig) -> list[list[str]]:
    """Names of the devices of each process."""
    import jax

    every = [[d for d in jax.devices() if d.process_index == i] for i in range(config.hosts)]
    return [[f"{d.platform}:{d.id}" for d in sorted(one, key=attrgetter("id"))] for one in every]


class CoordinatorClient:
    """This process's connection to JAX's coordinator, through which failures are reported.

    Args:
        rank, hosts, coordinator: see ``rendezvous``.
        seconds: how long to wait for all processes to connect.
    """

    def __init__(self, rank: int, hosts: int, coordinator: str, seconds: float):
        self._rank, self._place, self._seconds = rank, (coordinator, hosts, rank), seconds
        self._is_over, self._lock = threading.Event(), threading.Lock()
        self._client: Any = None

    @contextlib.contextmanager
    def open(self) -> Iterator[CoordinatorClient]:
        """Keep the connection open in the block; see ``join_group``."""
        import jax

        with _abort_handler(self._end_natively):
            try:
                self._connect()
                yield self
                self.barrier("end")  # so that no process waits for another in shutdown()
                self._is_over.set()
                jax.distributed.shutdown()
            except BaseException as error:
                self._fail(error)
                raise

    def _connect(self) -> None:
        import jax
        from jax._src import distributed  # there is no public API of its key-value store

        # On CPU, two programs running at once would receive each other's messages.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        jax.distributed.initialize(
            *self._place,
            cluster_detection_method="deactivate",
            initialization_timeout=int(self._seconds),
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=SHUTDOWN,
        )
        if jax.process_count() != self._place[1]:
            raise RuntimeError(f"{jax.process_count()} of {self._place[1]} processes are connected")
        self._client = distributed.global_state.client
        threading.Thread(target=self._watch, daemon=True).start()

    def barrier(self, place: str) -> None:
        """Wait until all processes have reached ``place``; this one ends if another fails."""
        self._client.key_value_set(f"keras_scnn/{place}/{self._rank}", "here")
        for rank in range(self._place[1]):
            self.wait_for(place, rank)

    def wait_for(self, place: str, rank: int) -> None:
        """Wait until a process has reached ``place``, however long that takes."""
        name = f"/{rank}"
        while not any(key.endswith(name) for key, _ in self._entries(f"keras_scnn/{place}")):
            time.sleep(0.05)

    def _entries(self, folder: str) -> list[tuple[str, str]]:
        return self._client.key_value_dir_get(folder)

    def _watch(self) -> None:
        while not self._is_over.wait(0.5):
            if reason := self._reason():
                self._end(f"{reason}; {AGAIN}")

    def _reason(self) -> str:
        """The failure that another process has reported; '' for none."""
        try:
            reported = self._entries(FAILED)
        except Exception:  # the coordinator is gone; JAX ends this process by itself
            return ""
        others = [text for key, text in reported if key != f"{FAILED}{self._rank}"]
        return others[0] if others else ""

    def _fail(self, error: BaseException) -> None:
        """Report an error to the other processes; if it means that one was lost, exit instead."""
        text = " ".join(str(error).split()) or type(error).__name__
        if STATUS.match(text):
            time.sleep(GRACE)  # meanwhile ``_watch`` may exit with the cause
            self._end(f"{LOST} ({text[:120]})")
        self._is_over.set()
        if self._client is not None:
            with contextlib.suppress(Exception):
                self._client.key_value_set(f"{FAILED}{self._rank}", f"rank {self._rank}: {text}")

    def _end_natively(self) -> NoReturn:
        """Exit in place of JAX, which aborts when the coordinator or another process is lost."""
        if self._is_over.is_set():
            os._exit(FAILURE)
        self._end(LOST)

    def _end(self, text: str) -> NoReturn:
        """Print one line and exit: a thread waiting for a lost process cannot be interrupted."""
        with self._lock:  # never released: only one thread prints
            print(f"\nerror: {text}", file=sys.stderr, flush=True)
            os._exit(FAILURE)


@contextlib.contextmanager
def _abort_handler(on_abort: Callable[[], NoReturn]) -> Iterator[None]:
    """In the block an abort calls ``on_abort``, and native libraries' stderr is discarded.

    JAX's client calls ``abort`` in a thread of its own, after it has written a stack trace to
    stderr. A handler of Python's ``signal`` would run in the main thread, which may wait forever.
    After an error both stay in effect: JAX may still abort while the process ends.
    """
    if sys.platform == "win32":
        raise OSError("training on several hosts needs Linux or macOS")
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: on_abort())
    _kept_alive.append(handler)  # also while the process ends after a failure
    library = ctypes.CDLL(None)
    library.signal(signal.SIGABRT, handler)
    python, kept = sys.stderr, os.dup(2)
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "3":  # else the user wants to see it
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
    yield
    library.signal(signal.SIGABRT, ctypes.c_void_p(signal.SIG_DFL))
    os.dup2(kept, 2)
    os.close(kept)
    if sys.stderr is not python:
        sys.stderr.close()
        sys.stderr = python


_kept_alive: list[Any] = []
