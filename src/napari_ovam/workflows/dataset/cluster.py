"""Workers of Dask that make shards: processes here, or whatever a scheduler has.

Retries after a worker was lost, nannies that start it again, stealing and the dashboard
are Dask's. Files are written by who makes them: all see the plan's folder.
"""

from __future__ import annotations

import logging
import os
import platform
import threading
import uuid
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ovam.workflows.dataset.making import ModelMaker, check_version
from napari_ovam.workflows.dataset.plan import Plan, PlanError
from napari_ovam.workflows.dataset.shards import Shard, is_fatal, make_shard

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_ovam.base.progress import Progress
    from napari_ovam.workflows.dataset.making import Maker
    from napari_ovam.workflows.dataset.running import LoadMaker

_LOST_WORKERS = 10
"""A shard that so many workers were lost with is given up until the next run."""

_PATIENCE = 30  # seconds in which a scheduler has to answer

_loaded: dict[tuple[str, str, str], tuple[Plan, Maker]] = {}
_one_at_a_time = threading.Lock()


class ClusterError(RuntimeError):
    """Workers that cannot be used or reached; the message says what to do."""


class Workers(AbstractContextManager["Workers"]):
    """Makes shards with workers of Dask.

    Parameters
    ----------
    root, plan
        The plan's folder, and the plan.
    workers
        Processes on this machine, if no `scheduler` is given.
    scheduler
        The address of one that runs (tcp://..., tls://...), or its file.
    device
        As for `load_pipeline`; "auto" gives each local worker a GPU of its own.
    retries
        As for `make_shard`.
    load
        What loads the model in a worker.

    Attributes
    ----------
    dashboard
        The address of Dask's dashboard, or "".
    warning
        What to know of the wire, or "".
    """

    def __init__(
        self,
        root: Path,
        plan: Plan,
        *,
        workers: int = 1,
        scheduler: str | None = None,
        device: str = "auto",
        retries: int = 2,
        load: LoadMaker = ModelMaker,
    ) -> None:
        self._root, self._plan = str(root.resolve()), plan
        self._how = device, retries, load
        self._stack = ExitStack()
        with self._stack:  # what was begun ends if not all of it can be
            self._client = self._connect(workers, scheduler)
            self._stack = self._stack.pop_all()
        self.dashboard = str(self._client.dashboard_link or "")
        address = str(self._client.scheduler.address)
        self.warning = "" if is_safe(address) else _unsafe(address)

    def _connect(self, workers: int, scheduler: str | None) -> Any:
        try:
            import dask
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise ClusterError(
                f"workers need Dask's scheduler ({error}): "
                "pip install 'napari-ovam[cluster]'"
            ) from error
        # That a scheduler goes away is said here, in a sentence.
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
        if scheduler is None:
            dask.config.set({"distributed.scheduler.allowed-failures": _LOST_WORKERS})
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                host="127.0.0.1",  # nobody else can reach it
                dashboard_address="127.0.0.1:0",
                memory_limit=0,  # a model is not Dask's to spill
            )
            self._stack.enter_context(cluster)
            return self._stack.enter_context(Client(cluster))
        try:
            file = "://" not in scheduler and Path(scheduler).is_file()
            where = {"scheduler_file" if file else "address": scheduler}
            return self._stack.enter_context(Client(**where, timeout=_PATIENCE))
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"no scheduler answers at {scheduler!r} ({error}): give its address, "
                "such as tcp://host:8786, or the file that it wrote"
            ) from error

    def __exit__(self, *of: Any) -> bool | None:
        return self._stack.__exit__(*of)

    def make(
        self, shards: Sequence[Shard], progress: Progress
    ) -> Iterator[tuple[Shard, str]]:
        """Make shards with all workers, also those that come later.

        It raises `PlanError` if a worker has another version or model or does not see
        the plan's folder; `ClusterError` if the scheduler goes away.
        """
        from distributed import as_completed
        from distributed.client import FutureCancelledError
        from distributed.comm import CommClosedError
        from distributed.scheduler import KilledWorker

        self._check_workers()
        device, retries, load = self._how
        run, size = uuid.uuid4().hex[:8], {s.number: len(s.items) for s in shards}
        total, done = sum(size.values()), 0
        futures = {
            self._client.submit(
                _make_here,
                self._root,
                self._plan.hash,
                (shard.number, shard.items),
                device,
                retries,
                load,
                key=f"shard-{shard.number:05d}-{run}",
                retries=retries,
                pure=False,
                priority=-shard.number,
            ): shard
            for shard in shards
        }
        try:
            for future in as_completed(futures):
                shard, error = futures.pop(future), ""
                try:
                    future.result()
                except KilledWorker as lost:
                    error = str(lost)
                done += size[shard.number]
                progress(done, total)
                yield shard, error
        except (FutureCancelledError, CommClosedError) as error:
            raise ClusterError(
                f"the scheduler went away with {len(futures)} shards to do ({error}): "
                "what is done is kept, run it again"
            ) from error
        finally:
            if futures:
                self._client.cancel(list(futures), force=True)

    def _check_workers(self) -> None:
        """Refuse to begin with workers that would make something else."""
        answers = self._client.run(
            _check_here, self._root, self._plan.hash, on_error="return"
        )
        wrong = [(where, said) for where, said in answers.items() if said is not None]
        for where, answer in wrong:
            raise PlanError(
                f"{len(wrong)} of {len(answers)} workers cannot follow the plan, such "
                f"as {where}: {answer}"
            )


def _check_here(root: str, plan_hash: str) -> None:
    """Raise PlanError where a worker has another program, or does not see the plan."""
    check_version(_load_plan(root, plan_hash))


def _load_plan(root: str, plan_hash: str) -> Plan:
    try:
        plan = Plan.load(Path(root))
    except (PlanError, OSError) as error:
        raise PlanError(
            f"{platform.node()}: {error}. The folder has to be on a disk that all "
            "workers see, at the same place"
        ) from error
    if plan.hash != plan_hash:
        raise PlanError(f"{platform.node()} sees another plan in {root}")
    return plan


def _make_here(
    root: str,
    plan_hash: str,
    shard: tuple[int, tuple[int, ...]],
    device: str,
    retries: int,
    load: LoadMaker,
) -> int:
    """Make a shard in a worker, which keeps its model; return how many items it has."""
    with _one_at_a_time:
        key = root, plan_hash, device
        if key not in _loaded:
            plan = _load_plan(root, plan_hash)
            _loaded.clear()
            _loaded[key] = plan, load(plan, Path(root), _own_device(device))
        plan, maker = _loaded[key]
        try:
            make_shard(Path(root), plan, Shard(*shard), maker, retries=retries)
        except RuntimeError as error:
            if is_fatal(error):  # the nanny starts it again, with a GPU that works
                os._exit(70)
            raise
    return len(shard[1])


def _own_device(device: str) -> str:
    """Return the device of a worker: of local ones with GPUs, each its own."""
    from distributed import get_worker

    name = get_worker().name
    if device == "auto" and isinstance(name, int):  # else the cluster has given it one
        import torch

        if (count := torch.cuda.device_count()) > 1:
            return f"cuda:{name % count}"
    return device


def is_safe(address: str) -> bool:
    """Whether only this computer, or who has a certificate, reaches an address."""
    host = address.partition("://")[2].rpartition(":")[0]
    return address.startswith(("tls://", "inproc://")) or host in ("127.0.0.1", "[::1]")


def _unsafe(address: str) -> str:
    return (
        f"The wire to {address} is not encrypted, and whoever reaches it can run "
        "programs as you: use TLS, or a network that only you are on (docs/dataset.md)."
    )
