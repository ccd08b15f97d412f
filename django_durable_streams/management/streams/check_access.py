"""`manage.py streams check-access`."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from urllib.parse import parse_qsl, urlencode, urlsplit

from django.core.checks import Tags, run_checks
from django.core.exceptions import DisallowedHost, ImproperlyConfigured
from django.core.management.base import CommandError
from django.db import Error, router

from ...access.base import ACTIONS, STREAM_ACTIONS, Action
from ...access.examination import Answer, examine_access, is_allowed_by, loads_users, settings_refusal
from ...access.identities import session_failure, session_key
from ...access.sessions import are_installed as sessions_are_installed
from ...access.sessions import load_sessions, users_of
from ...access.signed import PARAMETER
from ...access.users import User, anonymous
from ...conf import config
from ...links import stream_url
from ...models import Stream
from ...protocol import arguments
from ...protocol.errors import DurableStreamsError
from ...protocol.paths import is_reserved
from ...store.read import log_reader
from ..client_request import ClientRequest
from ..users import find_user
from .base import Console, Options, Subcommand, header_argument
from .locations import Location, NoStream, locate

_OF_PATTERNS = ("durable_streams.W028", "durable_streams.W029")
"""The system checks about patterns of `OWNER`."""

_UNUSED_USER = "No permission class uses the user (needs_user), so a login counts for nothing."


class CheckAccess(Subcommand):
    """Asks the permission classes of the settings, as a request does."""

    name = "check-access"
    help = "say whether a user may do an action on a path, and why not"
    examples = """
streams check-access read chat/42 --user ada
streams check-access append chat/42                             a client without a login
streams check-access read reports/2026 --token TOKEN            of a signed URL, or a bearer token
streams check-access read 'https://example.org/v1/stream/reports/2026?token=...'
streams check-access read chat/42 --header 'X-Api-Key: ...' --host example.org
streams check-access read chat/42 --header 'Cookie: sessionid=...'     the user of a browser's session

The query and the host of a URL count. Each permission class answers, and one that allows the action is enough. The
classes see a request that has passed Django's CSRF rules. Limits are not counted. A missing stream is named, where the
action is allowed. The status is 1 if the action is refused.
"""
    has_database = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("access", metavar="ACTION", choices=ACTIONS, help=f"one of {', '.join(ACTIONS)}")
        parser.add_argument(
            "path",
            metavar="PATH",
            help="path or URL of a stream; for list the prefix, for subscribe the id of the subscription",
        )
        parser.add_argument("--user", help="name or primary key of the user (default: no login)")
        parser.add_argument("--token", help="the token of a signed URL, or a bearer token")
        parser.add_argument(
            "--header", action="append", default=[], type=header_argument, help="a header of the client"
        )
        parser.add_argument("--host", help="host of the request (default: that of the URL, or localhost)")

    def run(self, console: Console, options: Options) -> None:
        action, (user, note) = Action(options["access"]), _find_user(options)
        location = _locate(action, options["path"], user)
        path = location.path
        try:
            is_unused = user.is_authenticated and not loads_users()
            caller = anonymous() if is_unused else user
            answers, unread_token = examine_access(action, caller, path, _request(action, location, options))
        except DisallowedHost as error:
            raise CommandError(str(error)) from error
        except (ImproperlyConfigured, ValueError) as error:
            raise CommandError(f"The settings are invalid: {error}") from error
        refusal = settings_refusal(action, path)
        is_allowed = is_allowed_by(answers) and not refusal
        unused_note = _UNUSED_USER if is_unused else ""
        hints = [] if is_allowed else [unused_note, unread_token, *_near_misses()]
        missing = _missing_status(action, path) if is_allowed else None
        notes = [text for text in (note, refusal, _path_note(action, path), *hints) if text]
        who = str(user) if user.is_authenticated else "A client without a login"
        verdict = f"{who} {'may' if is_allowed else 'may not'} {action.value} {path or 'all streams'}."
        if console.is_json:
            console.json(
                {
                    "action": action.value,
                    "path": path,
                    "user": user.pk,
                    "allowed": is_allowed,
                    "exists": None if missing is None else not missing,
                    "notes": notes,
                    "permissions": [answer._asdict() for answer in answers],
                }
            )
        else:
            absence = f" But there is no stream at this path, so the response is {missing}." if missing else ""
            console.write_lines([*_lines(answers), *notes, *([f"{verdict}{absence}"] if is_allowed else ())])
        if not is_allowed:
            console.flush()
            raise CommandError(verdict)


def _lines(answers: Sequence[Answer]) -> Iterator[str]:
    """Yield a line for each class, with its dotted path where another class has the same name."""
    names = [answer.permission.rpartition(".")[2] for answer in answers]
    for name, answer in zip(names, answers, strict=True):
        shown = name if names.count(name) == 1 else answer.permission
        if answer.is_allowed:
            yield f"yes  {shown}"
        else:
            yield f"no   {shown}: {' '.join(answer.reasons) or 'it returns False, and gives no reason.'}"


def _path_note(action: Action, path: str) -> str:
    root = urlsplit(stream_url("")).path.lstrip("/")
    if root and path.startswith(root):
        return f"This looks like a URL. Give the path below the root of the streams: {path.removeprefix(root)}"
    if action is not Action.READ or not path or path != config().registry_path:
        return ""
    return "This is the registry: a read needs the permission to list all streams."


def _missing_status(action: Action, path: str) -> int | None:
    """Return the status of a request for a missing stream, or 0 if there is a stream at the path.

    None: the action needs no stream, or the database does not answer.
    """
    if action.value not in STREAM_ACTIONS or action is Action.CREATE:
        return None
    try:
        stream = log_reader.find([path], router.db_for_write(Stream))[path]
        return stream.status if isinstance(stream, DurableStreamsError) else 0
    except Error:  # the permission classes have answered without it
        return None


def _near_misses() -> list[str]:
    """Return what `manage.py check` says of patterns in `OWNER` that no path matches, such as `/reports/**`."""
    messages = [one for one in run_checks(tags=[Tags.security]) if one.id in _OF_PATTERNS and not one.is_silenced()]
    return [f"{one.msg} {one.hint or ''} ({one.id})" for one in messages]


def _locate(action: Action, text: str, user: User) -> Location:
    """Return the stream, the prefix or the subscription that an argument means.

    Raises:
        CommandError: it is a URL that leads elsewhere.
        InvalidPath, StreamNotFound: no stream can have the path.
    """
    try:
        location = locate(text, user)
    except NoStream as error:
        raise CommandError(str(error)) from error
    if action.value in STREAM_ACTIONS:
        return location._replace(path=arguments.path(location.path))
    if is_reserved(location.path):
        raise CommandError(f"{location.path} is a control API. For list give the prefix, for subscribe the id.")
    return location


def _query(location: Location, token: str | None) -> str:
    """Return the query of the URL. A token that is given besides it counts instead of that of the URL."""
    if token is None:
        return location.query
    pairs = [(name, value) for name, value in parse_qsl(location.query, True) if name != PARAMETER]
    return urlencode([*pairs, (PARAMETER, token)])


def _find_user(options: Options) -> tuple[User, str]:
    """Return the user with a name or primary key, or of the session of a `Cookie` header, and a note.

    Raises:
        CommandError: there is no such user.
    """
    name = options["user"]
    if name is None:
        return _find_user_of_session({header.lower(): value for header, value in options["header"]}.get("cookie"))
    from django.contrib.auth import get_backends

    user = find_user(name)
    # A backend may accept users that are not active.
    if any(backend.get_user(user.pk) is not None for backend in get_backends() if hasattr(backend, "get_user")):
        return user, ""
    reason = "No backend of AUTHENTICATION_BACKENDS accepts the user" if user.is_active else "The user is not active"
    return anonymous(), f"{reason}, so a session of {user} counts as no login."


def _find_user_of_session(cookies: str | None) -> tuple[User, str]:
    """Return the user as a server would load it, and a note about a session that leads to none."""
    if cookies is None:
        return anonymous(), ""
    key = session_key(cookies.encode())
    user = users_of(load_sessions([key])).get(key) if sessions_are_installed() else None
    return (user, "") if user is not None else (anonymous(), session_failure(cookies.encode()))


def _request(action: Action, location: Location, options: Options) -> ClientRequest:
    """Return the request that a client would send."""
    token, client_headers = options["token"], options["header"]
    if token and "authorization" not in {name.lower() for name, _ in client_headers}:
        client_headers = [("authorization", f"Bearer {token}"), *client_headers]
    host = options["host"] or location.host.rpartition("@")[2] or "localhost"
    return ClientRequest(action, location.path, _query(location, token), host, client_headers)
