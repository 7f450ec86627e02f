"""What of a node dies with its process: the service and its ports. A node that is restarted has a new one."""

import os
import secrets
import tempfile
from typing import Callable, NamedTuple, Optional, Tuple

from ..exceptions import NodeError
from ..handover.clock import Deadline
from ..wire import methods
from . import policies
from .accounts import AccountService
from .auth import AuthService
from .clock import NodeClock
from .fault_state import FaultState
from .page import Page
from .relay import Relay
from .rest import RateLimit, RestServer, Site
from .retention import Keeper, Retention
from .rpc import Server, Settings
from .service import FEATURES, Service
from .serving import serve
from .storage import Log

#: Where the server listens behind a relay.
INSIDE = "127.0.0.1"


class Plan(NamedTuple):
    """How a node is to run; the attributes are the arguments of ``Node``."""

    host: str
    strict: bool
    tls: Optional[Tuple[str, str]]
    retain: Optional[Retention]
    rate_limit: Optional[RateLimit]
    registration: bool
    most_calls: int


class Life:
    """A service that listens. Ready when it is made.

    Attributes:
        port, auth_port: Where it listens.
        auth_url: Where tokens are.
    """

    def __init__(
        self,
        plan: Plan,
        log: Log,
        auth: AuthService,
        clock: NodeClock,
        faults: FaultState,
        ports: Tuple[int, int],
        relay: Optional[Relay],
        page: Optional[Page],
        on_stored: Callable[[], None],
    ) -> None:
        """Start; the relay is pointed at the new port, and without one ``ports[0]`` is listened on itself.

        Raises:
            NodeError: A port is taken.
        """
        self._log = log
        self.service = Service(log, auth, clock, faults, plan.strict, on_stored)
        self._rest: Optional[RestServer] = None
        try:
            site = Site(auth, AccountService(auth, plan.registration), page, self._backup, plan.rate_limit)
            self._rest = RestServer(site, plan.host, ports[1], plan.tls)
            self._server = self._listen(plan, ports[0] if relay is None else None)
        except BaseException:
            self._close(Deadline(2.0))
            raise
        self.auth_url, self.auth_port = self._rest.url, self._rest.port
        self.port = self._server.port
        if relay is not None:
            relay.point_at((INSIDE, self.port))
        for run in policies.unfinished(self.service):
            self.service.pool.submit(run)
        if plan.retain is not None:
            Keeper(self.service, plan.retain).start()

    @property
    def calls(self) -> int:
        """How many calls are open."""
        return self._server.calls

    def stop(self, grace: float, deadline: Deadline) -> None:
        """End well: streams get so many seconds to end by themselves."""
        self.service.end()
        self._server.stop(grace, deadline)
        self._close(deadline)

    def kill(self, deadline: Deadline) -> None:
        """Be gone as by SIGKILL, as far as that is possible in a process that goes on."""
        self.service.broker.kill(deadline)
        self._server.stop(0.0, deadline)
        self._close(deadline)

    def _listen(self, plan: Plan, port: Optional[int]) -> Server:
        """Listen on a port, or with None on any one behind the relay."""
        host = plan.host if port is not None else INSIDE
        address = f"[{host}]:{port or 0}" if ":" in host else f"{host}:{port or 0}"
        announce = () if plan.strict else ((methods.FEATURES, FEATURES),)
        tls = None if plan.tls is None else (_read(plan.tls[1]), _read(plan.tls[0]))
        settings = Settings(address, tls, plan.most_calls, announce, gzip=not plan.strict)
        return serve(settings, self.service.open)

    def _close(self, deadline: Deadline) -> None:
        if self._rest is not None:
            self._rest.close(deadline)
        self.service.close(deadline)

    def _backup(self) -> str:
        path = os.path.join(tempfile.gettempdir(), f"ensign-backup-{secrets.token_hex(8)}")
        self._log.backup(path)
        return path


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise NodeError(f"the TLS file {path} cannot be read: {error}") from error
