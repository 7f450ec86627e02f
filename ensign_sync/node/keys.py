"""API keys, projects and users of a node. Secrets and passwords are kept as salted hashes only.

The one exception is the node's own development key, which a program that starts a node has to be told: it stands in the
data file, which only its owner may read.
"""

import hashlib
import hmac
import json
import secrets
import string
import threading
import time
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Tuple

from ..ids import ULID
from .storage import Log

#: The permissions that an API key may have.
PERMISSIONS = (
    "topics:create",
    "topics:edit",
    "topics:destroy",
    "topics:read",
    "metrics:read",
    "publisher",
    "subscriber",
)

#: The permissions of a user who owns an organization.
OWNER_PERMISSIONS = (
    "organizations:edit organizations:delete organizations:read collaborators:add collaborators:remove"
    " collaborators:edit collaborators:read projects:edit projects:delete projects:read apikeys:edit apikeys:delete"
    " apikeys:read topics:create topics:edit topics:destroy topics:read metrics:read"
).split()

_ITERATIONS = 100_000
_LETTERS = string.ascii_letters
_OWN = "api key"  # the name of the setting
_KINDS = {"key": "api-key", "project": "project", "user": "user"}


class ApiKey(NamedTuple):
    """A key as it is kept: who it is, whose it is, what it may do."""

    id: str
    client_id: str
    name: str
    organization: str
    project: str
    permissions: Tuple[str, ...]
    secret: str  # the hash; of the node's own key the secret itself
    created_by: str = ""
    source: str = ""
    created: float = 0.0
    last_used: float = 0.0


class Project(NamedTuple):
    """A project: the topics of one have nothing to do with those of another."""

    id: str
    organization: str
    created: float


class User(NamedTuple):
    """A person who may make projects and keys; never publishes or subscribes."""

    id: str
    name: str
    email: str
    organization: str
    organization_name: str
    domain: str
    password: str  # the hash
    created: float


class KeyBook:
    """Everybody whom a node knows. Any thread may call any method.

    Attributes:
        own: The node's development key, with every permission.
        own_secret: Its secret.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lock = threading.RLock()
        self._proved: Dict[str, bytes] = {}  # client id -> what was hashed last time and was right
        self._proof_key = secrets.token_bytes(16)
        self.own, self.own_secret = self._make_own()
        self._keys: Dict[str, ApiKey] = {key.client_id: key for key in self._load("key", _key)}
        self._projects: Dict[str, Project] = {p.id: p for p in self._load("project", lambda kept: Project(**kept))}
        self._users: Dict[str, User] = {user.email: user for user in self._load("user", lambda kept: User(**kept))}

    # keys

    def add_key(
        self,
        project: str,
        organization: str,
        permissions: Iterable[str],
        name: str = "",
        created_by: str = "",
        source: str = "",
    ) -> Tuple[ApiKey, str]:
        """Make a key; returns it with its secret, which nobody can be told again."""
        secret = _random(_LETTERS + string.digits, 64)
        made = ApiKey(
            str(ULID.new()), _random(_LETTERS, 32), name, organization, project, tuple(permissions), _hashed(secret),
            created_by, source, time.time(),
        )  # fmt: skip
        self._put(made)
        return made, secret

    def check(self, client_id: str, secret: str) -> Optional[ApiKey]:
        """Return the key that belongs to a client id and a secret; takes about a twentieth of a second at first."""
        if hmac.compare_digest(client_id.encode("utf-8"), self.own.client_id.encode("utf-8")):
            right = hmac.compare_digest(secret.encode("utf-8"), self.own_secret.encode("utf-8"))
            return self.own if right else None
        key = self._keys.get(client_id)
        proof = hashlib.blake2b(f"{client_id}\0{secret}".encode("utf-8", "replace"), key=self._proof_key).digest()
        if key is not None and hmac.compare_digest(self._proved.get(client_id, b""), proof):
            return key
        # Who guesses a client id waits as long as who knows one.
        if not _matches(secret, key.secret if key else _NOBODY) or key is None:
            return None
        with self._lock:
            self._proved[client_id] = proof
            if time.time() - key.last_used > 60:
                self._put(key._replace(last_used=time.time()))
        return key

    def key_of(self, key_id: str) -> Optional[ApiKey]:
        """Return a key by its id, which is the subject of its tokens."""
        return next((key for key in [self.own, *self.keys()] if key.id == key_id), None)

    def keys(self, organization: str = "") -> List[ApiKey]:
        """Return the keys, of one organization or of all, without the node's own."""
        return [key for key in list(self._keys.values()) if organization in ("", key.organization)]

    def rename(self, key: ApiKey, name: str) -> ApiKey:
        """Give a key another name."""
        changed = key._replace(name=name)
        self._put(changed)
        return changed

    def remove_key(self, key: ApiKey) -> None:
        """Forget a key; tokens that it got stay good until they expire."""
        with self._lock:
            self._keys.pop(key.client_id, None)
            self._proved.pop(key.client_id, None)
            self._log.put_record(_KINDS["key"], key.client_id, None)

    # projects and users

    def add_project(self, organization: str, id: str = "") -> Project:
        """Make a project; KeyError if its id is taken."""
        made = Project(id or str(ULID.new()), organization, time.time())
        with self._lock:
            if made.id in self._projects or made.id == self.own.project:
                raise KeyError(made.id)
            self._keep("project", made.id, made)
            self._projects[made.id] = made
        return made

    def project(self, id: str) -> Optional[Project]:
        """Return a project by its id; the node's own is one too."""
        if id == self.own.project:
            return Project(id, self.own.organization, self.own.created)
        return self._projects.get(id)

    def projects(self, organization: str) -> List[Project]:
        """Return the projects of an organization."""
        return [project for project in list(self._projects.values()) if project.organization == organization]

    def add_user(self, name: str, email: str, password: str, organization_name: str, domain: str) -> User:
        """Make a user with an organization of their own; KeyError if the address is known."""
        made = User(
            str(ULID.new()), name, email, str(ULID.new()), organization_name, domain, _hashed(password), time.time()
        )
        with self._lock:
            if email in self._users:
                raise KeyError(email)
            self._keep("user", email, made)
            self._users[email] = made
        return made

    def check_user(self, email: str, password: str) -> Optional[User]:
        """Return the user who has an address and a password."""
        user = self._users.get(email)
        return user if _matches(password, user.password if user else _NOBODY) else None

    def user_of(self, user_id: str) -> Optional[User]:
        """Return a user by their id."""
        return next((user for user in list(self._users.values()) if user.id == user_id), None)

    def reset(self) -> None:
        """Forget everybody but the node's own key."""
        known: Dict[str, Dict[str, Any]] = {"key": self._keys, "project": self._projects, "user": self._users}
        with self._lock:
            for kind, records in known.items():
                for name in list(records):
                    self._log.put_record(_KINDS[kind], name, None)
                records.clear()
            self._proved.clear()

    # inside

    def _put(self, key: ApiKey) -> None:
        with self._lock:
            self._keep("key", key.client_id, key)
            self._keys[key.client_id] = key

    def _keep(self, kind: str, name: str, record: Any) -> None:
        self._log.put_record(_KINDS[kind], name, json.dumps(record._asdict()).encode("ascii"))

    def _load(self, kind: str, make: Any) -> List[Any]:
        return [make(json.loads(kept)) for kept in self._log.records(_KINDS[kind]).values()]

    def _make_own(self) -> Tuple[ApiKey, str]:
        kept = self._log.setting(_OWN)
        if kept is None:
            ids = {name: str(ULID.new()) for name in ("key_id", "organization", "project")}
            secret = _random(_LETTERS + string.digits, 64)
            kept = json.dumps({"client_id": _random(_LETTERS, 32), "client_secret": secret, **ids}).encode("ascii")
            self._log.keep(_OWN, kept)
        found = json.loads(kept)
        key = ApiKey(
            found["key_id"], found["client_id"], "development", found["organization"], found["project"], PERMISSIONS, ""
        )
        return key, found["client_secret"]


def _key(kept: Dict[str, Any]) -> ApiKey:
    return ApiKey(**{**kept, "permissions": tuple(kept["permissions"])})


def _random(alphabet: str, length: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))


def _hashed(secret: str) -> str:
    salt = secrets.token_bytes(16)
    return f"pbkdf2-sha256${_ITERATIONS}${salt.hex()}${_derived(secret, salt, _ITERATIONS).hex()}"


def _matches(secret: str, kept: str) -> bool:
    _, iterations, salt, wanted = kept.split("$")
    return hmac.compare_digest(_derived(secret, bytes.fromhex(salt), int(iterations)), bytes.fromhex(wanted))


def _derived(secret: str, salt: bytes, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", secret.encode("utf-8", "replace"), salt, iterations)


#: The hash of no secret at all.
_NOBODY = f"pbkdf2-sha256${_ITERATIONS}${'00' * 16}${'00' * 32}"
