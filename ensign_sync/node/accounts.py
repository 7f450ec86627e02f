"""The REST calls by which people make projects and API keys (docs/protocol.rst, "Authentication")."""

from typing import Any, Callable, Dict, List, Optional

from ..ids import ULID
from ..times import Instant, to_rfc3339
from .auth import Answer, AuthService, bad_request, error, user_holder
from .claims import InvalidToken
from .keys import PERMISSIONS, ApiKey, KeyBook, Project, User

_SECRET_FIELDS = ("id", "client_id", "client_secret", "org_id", "created_by", "user_agent", "last_used")
_DATA_PERMISSIONS = ("publisher", "subscriber")
_LEAST_STRENGTH = 3

Body = Dict[str, Any]
#: Serves a request: the claims of its token, the last part of its path, its body.
Route = Callable[[Dict[str, Any], str, Body], Answer]


class AccountService:
    """Serves the calls about users, projects and keys. Any thread may call any method."""

    def __init__(self, auth: AuthService, open_to_all: bool) -> None:
        """Make the service; ``open_to_all`` lets anybody register, as the real one does."""
        self._auth = auth
        self._keys: KeyBook = auth.keys
        self._open_to_all = open_to_all
        self._routes: Dict[str, Any] = {
            "GET /v1/projects": ("projects:read", self._projects),
            "POST /v1/projects": ("projects:edit", self._add_project),
            "GET /v1/projects/": ("projects:read", self._project),
            "POST /v1/projects/access": ("topics:read", self._access),
            "GET /v1/apikeys": ("apikeys:read", self._list),
            "POST /v1/apikeys": ("apikeys:edit", self._add_key),
            "GET /v1/apikeys/permissions": ("", self._permissions),
            "GET /v1/apikeys/": ("apikeys:read", self._key),
            "PUT /v1/apikeys/": ("apikeys:edit", self._rename),
            "DELETE /v1/apikeys/": ("apikeys:delete", self._remove),
        }

    def register(self, body: Body) -> Answer:
        """Make a user with an organization; the address needs no verification here, since no mail can be sent."""
        if not self._open_to_all:
            return error(403, "this node does not let strangers register; its keys are made by who runs it")
        for name in ("name", "email", "password", "pwcheck", "organization", "domain"):
            if not isinstance(body.get(name), str) or not body[name].strip():
                return error(400, f"missing required field: {name}")
        for name in ("terms_agreement", "privacy_agreement"):
            if body.get(name) is not True:
                return error(400, f"missing required field: {name}")
        if body["password"] != body["pwcheck"]:
            return error(400, "invalid field: passwords do not match")
        if _strength(body["password"]) < _LEAST_STRENGTH:
            return error(400, "invalid field: password is too weak: make it longer, or mix cases, digits and signs")
        try:
            user = self._keys.add_user(
                body["name"], body["email"], body["password"], body["organization"], body["domain"]
            )
        except KeyError:
            return error(409, "user or organization already exists")
        return Answer(201, _registered(user))

    def allowed(self, path: str) -> List[str]:
        """Return the methods that a path has; none if it is not ours."""
        names = _route_names(path)
        return [key.partition(" ")[0] for key in self._routes if key.partition(" ")[2] in names]

    def answer(self, method: str, path: str, authorization: str, read: Callable[[], Optional[Body]]) -> Answer:
        """Answer a call that needs a token; ``read`` returns its body, None if that is no JSON object."""
        try:
            claims = self._auth.check(authorization[len("Bearer ") :] if authorization.startswith("Bearer ") else "")
        except InvalidToken:
            return error(401, "this endpoint requires authentication")
        found = [self._routes[f"{method} {name}"] for name in _route_names(path) if f"{method} {name}" in self._routes]
        permission, route = found[0]
        if permission and permission not in (claims.get("permissions") or ()):
            return error(403, "user does not have permission to perform this operation")
        body = read()
        if body is None:
            return bad_request("could not parse request")
        answer: Answer = route(claims, path.rpartition("/")[2], body)
        return answer

    # projects

    def _projects(self, claims: Body, _: str, __: Body) -> Answer:
        return Answer(200, {"projects": [_project_body(p) for p in self._keys.projects(str(claims.get("org")))]})

    def _add_project(self, claims: Body, _: str, body: Body) -> Answer:
        id = body.get("project_id", "")
        try:
            parsed = str(ULID(id))
        except (ValueError, TypeError):
            return error(400, "missing required field: project_id" if not id else "invalid field: project_id")
        try:
            return Answer(200, _project_body(self._keys.add_project(str(claims.get("org")), parsed)))
        except KeyError:
            return error(409, "project already exists")

    def _own_project(self, claims: Body, id: Any) -> Optional[Project]:
        project = self._keys.project(id) if isinstance(id, str) else None
        return project if project is not None and project.organization == claims.get("org") else None

    def _project(self, claims: Body, id: str, _: Body) -> Answer:
        project = self._own_project(claims, id)
        return error(404, "resource not found") if project is None else Answer(200, _project_body(project))

    def _access(self, claims: Body, _: str, body: Body) -> Answer:
        project = self._own_project(claims, body.get("project_id"))
        user = self._keys.user_of(str(claims.get("sub")))
        if project is None or user is None:
            return error(404, "resource not found")
        permissions = [p for p in claims["permissions"] if p.startswith(("topics:", "metrics:"))]
        holder = user_holder(user)._replace(project=project.id, permissions=permissions)
        return Answer(200, {"access_token": self._auth.one_time(holder)})

    # keys

    def _permissions(self, _: Body, __: str, ___: Body) -> Answer:
        return Answer(200, list(PERMISSIONS))

    def _list(self, claims: Body, _: str, __: Body) -> Answer:
        return Answer(200, {"apikeys": [_key_body(key) for key in self._keys.keys(str(claims.get("org")))]})

    def _add_key(self, claims: Body, _: str, body: Body) -> Answer:
        for name in _SECRET_FIELDS:
            if body.get(name):
                return error(400, f"field restricted for request: {name}")
        for name in ("name", "project_id", "permissions"):
            if not body.get(name):
                return error(400, f"missing required field: {name}")
        wanted = body["permissions"]
        if not isinstance(wanted, list) or not isinstance(body["name"], str):
            return error(400, "could not parse request")
        held = (*claims.get("permissions", ()), *_DATA_PERMISSIONS)
        if any(permission not in PERMISSIONS or permission not in held for permission in wanted):
            return error(400, "invalid permissions requested for apikey")
        project = self._own_project(claims, body["project_id"])
        if project is None:
            return error(400, "validation error: invalid project id for apikey")
        key, secret = self._keys.add_key(
            project.id, project.organization, wanted, body["name"], str(claims["sub"]), str(body.get("source", ""))
        )
        return Answer(201, {**_key_body(key), "client_secret": secret})

    def _own_key(self, claims: Body, id: str) -> Optional[ApiKey]:
        return next((key for key in self._keys.keys(str(claims.get("org"))) if key.id == id), None)

    def _key(self, claims: Body, id: str, _: Body) -> Answer:
        key = self._own_key(claims, id)
        return error(404, "resource not found") if key is None else Answer(200, _key_body(key))

    def _rename(self, claims: Body, id: str, body: Body) -> Answer:
        key = self._own_key(claims, id)
        if key is None:
            return error(404, "resource not found")
        if not isinstance(body.get("name"), str) or not body["name"]:
            return error(400, "missing required field: name")
        return Answer(200, _key_body(self._keys.rename(key, body["name"])))

    def _remove(self, claims: Body, id: str, _: Body) -> Answer:
        key = self._own_key(claims, id)
        if key is None:
            return error(404, "resource not found")
        self._keys.remove_key(key)
        return Answer(200, {"success": True})


def _route_names(path: str) -> List[str]:
    """Return the names under which a path may stand among the routes: itself, or with any last part."""
    head, _, last = path.rpartition("/")
    return [path, f"{head}/"] if last else [path]


def _strength(password: str) -> int:
    """Rate a password as the real service does; below 3 it is refused."""
    if len(password.encode("utf-8", "replace")) < 8:
        return 0
    mixed = password != password.lower() and password != password.upper()
    digit = any(c.isdigit() for c in password)
    sign = any(not c.isalnum() for c in password)
    return 1 + (len(password) >= 12) + mixed + digit + sign


def _registered(user: User) -> Body:
    return {
        "user_id": user.id,
        "org_id": user.organization,
        "email": user.email,
        "org_name": user.organization_name,
        "org_domain": user.domain,
        "message": "Welcome to Ensign!",
        "role": "Owner",
        "created": _time(user.created),
    }


def _project_body(project: Project) -> Body:
    at = _time(project.created)
    return {"org_id": project.organization, "project_id": project.id, "created": at, "modified": at}


def _key_body(key: ApiKey) -> Body:
    return {
        "id": key.id,
        "client_id": key.client_id,
        "name": key.name,
        "org_id": key.organization,
        "project_id": key.project,
        "created_by": key.created_by,
        "source": key.source,
        "user_agent": "",
        "last_used": _time(key.last_used) if key.last_used else "",
        "permissions": list(key.permissions),
        "created": _time(key.created),
        "modified": _time(key.created),
    }


def _time(seconds: float) -> str:
    return to_rfc3339(Instant.from_ns(int(seconds * 1e9)))
