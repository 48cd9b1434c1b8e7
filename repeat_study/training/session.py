"""A bundle's training session: its token store, resources and processes, and the callbacks that report progress and request a stop."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from data_prep.token_store import TokenStore
from repeat_study.config.resources import Resources
from repeat_study.records.outcome import Progress
from repeat_study.training.distributed import ProcessGroup
from repeat_study.training.store_watch import ADVICE, AlteredStore, StoreWatch


@dataclass(frozen=True)
class Session:
    """The store, resources, processes and callbacks for one call to `train_bundle`."""

    store: TokenStore
    resources: Resources
    process_group: ProcessGroup
    store_watch: StoreWatch
    report: Callable[[Progress], None]  # called at every evaluation
    should_stop: Callable[[], bool]  # called after every step
    terminated: threading.Event = field(default_factory=threading.Event)  # set when SIGTERM arrives

    def check_store(self) -> None:
        """Raise AlteredStore on every process if a watched store was altered after training started."""
        path = self.store_watch.altered()
        if self.process_group.any(path is not None):
            use = "were evaluated" if path and path.parent != self.store.folder else "trained"
            raise AlteredStore(f"{path or self.store.folder}: altered while runs {use} on it; {ADVICE}")

    def stop_requested(self) -> bool:
        """Whether this process should stop because of `should_stop` or SIGTERM."""
        return self.should_stop() or self.terminated.is_set()
