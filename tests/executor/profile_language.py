"""An evaluator of Seatbelt's profile language (SBPL): what would macOS say to this operation under this profile?

Written from Apple's documented names and published profiles, for machines that are no Mac; tests/executor/
test_profile_language.py compares it with `sandbox-exec` where there is one. What it does not know it refuses with
ProfileError and never guesses.

The rules of the language, as far as profiles in use rely on them:

- `(allow|deny OPERATION... FILTER...)`; a rule matches when its operations name this one, by themselves or by a
  wildcard (`file-read*`), and any of its filters matches (or there is none).
- Of the rules that match, the last one in the text decides. `default` is what holds when none does, wherever it stands.
- `require-all`, `require-any` and `require-not` combine filters.
- `literal` and `path` are one path, `subpath` a folder with all below, `prefix` a beginning of the text, `regex` a
  POSIX regular expression that may match anywhere in the path.
- Parameters come in by name through `(param "NAME")`; one that was not given is false.
- Around the rules stands a small Scheme: define, let, if, when, begin, and/or/not and functions on strings.
"""

# ruff: noqa: SIM905  lists of names are read as words
from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

# Names of operations, as Apple's own profiles and error messages use them. One that is missing here is an error, as a
# name that the system's compiler does not know is.
OPERATIONS = frozenset(
    """
    appleevent-send authorization-right-obtain device-camera device-microphone distributed-notification-post
    dynamic-code-generation file-chroot file-clone file-ioctl file-issue-extension file-link file-map-executable
    file-mknod file-mount file-mount-update file-read-data file-read-metadata file-read-xattr file-revoke
    file-search file-symlink file-test-existence file-unmount file-write-acl file-write-create file-write-data
    file-write-flags file-write-mode file-write-mount file-write-owner file-write-setugid file-write-times
    file-write-unlink file-write-unmount file-write-xattr fs-snapshot-create generic-issue-extension hid-control
    iokit-get-properties iokit-issue-extension iokit-open iokit-open-service iokit-open-user-client
    iokit-set-properties ipc-posix-issue-extension ipc-posix-sem ipc-posix-sem-create ipc-posix-sem-open
    ipc-posix-sem-post ipc-posix-sem-unlink ipc-posix-sem-wait ipc-posix-shm-read-data
    ipc-posix-shm-read-metadata ipc-posix-shm-write-create ipc-posix-shm-write-data ipc-posix-shm-write-unlink
    ipc-sysv-msg ipc-sysv-sem ipc-sysv-shm job-creation lsopen mach-bootstrap mach-cross-domain-lookup
    mach-derive-port mach-host-exception-port-set mach-host-special-port-set mach-issue-extension mach-lookup
    mach-message-send mach-per-user-lookup mach-priv-host-port mach-priv-task-port mach-register
    mach-task-exception-port-set mach-task-name mach-task-read mach-task-special-port-set network-bind
    network-inbound network-outbound nvram-delete nvram-get nvram-set process-codesigning-blob-get
    process-codesigning-cdhash-get process-codesigning-entitlements-blob-get process-codesigning-identity-get
    process-codesigning-status-get process-codesigning-status-set process-exec process-exec-interpreter
    process-exec-update-label process-fork process-info-codesignature process-info-dirtycontrol
    process-info-ledger process-info-listpids process-info-pidfdinfo process-info-pidfileportinfo
    process-info-pidinfo process-info-rusage process-info-setcontrol process-legacy-codesigning-status-get
    pseudo-tty qtn-user signal socket-ioctl socket-option-get socket-option-set syscall-mach syscall-mig
    syscall-unix sysctl-read sysctl-write system-acct system-audit system-automount system-debug system-fcntl
    system-fsctl system-info system-kext-load system-kext-query system-kext-unload system-lcid system-mac-label
    system-mac-syscall system-nfssvc system-package-check system-privilege system-reboot system-sched
    system-set-time system-socket system-suspend-resume system-swap user-preference-managed user-preference-read
    user-preference-write
    """.split()
)


class ProfileError(ValueError):
    """The text is no profile that this evaluator, or the system's compiler, understands."""


@dataclass(frozen=True)
class Access:
    """One operation and what it is about. `target` is self, parent, child, pgrp, same-sandbox or others."""

    operation: str
    path: str = ""
    name: str = ""  # of a sysctl, a mach service, a semaphore
    target: str = "others"
    kind: str = "REGULAR-FILE"  # of the vnode
    domain: str = ""  # of a socket: AF_INET, AF_UNIX, ...
    remote: str = ""  # where a connection goes, as "ip:127.0.0.1:80" or "unix-socket:/path"


class Symbol(str):
    """A name in the text."""


Matcher = Callable[[Access], bool]


@dataclass(frozen=True)
class Rule:
    """One rule: who it is about, and when it matches."""

    allow: bool
    operations: tuple[str, ...]
    matches: Matcher
    text: str


# -- reading ------------------------------------------------------------------------------------------------

_TOKEN = re.compile(r"""(?:;[^\n]*|\s+|')|""" r'#"((?:[^"\\]|\\.)*)"|"((?:[^"\\]|\\.)*)"|([()])|([^\s()"\';]+)')


def read(text: str) -> list[Any]:
    """S-expressions: lists, Symbols, strings (`str`), numbers and truth values. Raises ProfileError."""
    stack: list[list[Any]] = [[]]
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ProfileError(f"unreadable at {text[at : at + 20]!r}")
        at = found.end()
        raw, quoted, bracket, word = found.groups()
        if raw is not None:
            stack[-1].append(raw)  # a raw string keeps its backslashes
        elif quoted is not None:
            stack[-1].append(re.sub(r"\\(.)", r"\1", quoted))
        elif bracket == "(":
            stack.append([])
        elif bracket == ")":
            if len(stack) == 1:
                raise ProfileError("a bracket is closed that was not opened")
            done = stack.pop()
            stack[-1].append(done)
        elif word is not None:
            stack[-1].append(_atom(word))
    if len(stack) != 1:
        raise ProfileError("a bracket is not closed")
    return stack[0]


def _atom(word: str) -> Any:
    if word in ("#t", "#f"):
        return word == "#t"
    if re.fullmatch(r"-?\d+", word):
        return int(word)
    return Symbol(word)


# -- the Scheme around the rules ----------------------------------------------------------------------------


@dataclass
class Profile:
    """A profile that has been read. Use `Profile.parse`, then `allows`."""

    rules: list[Rule] = field(default_factory=list)
    default: bool | None = None
    version: int = 0

    @classmethod
    def parse(cls, text: str, parameters: Mapping[str, str] | None = None) -> Profile:
        """Read a profile with its parameters. Raises ProfileError."""
        profile = cls()
        scope = dict(_functions(parameters or {}))
        for form in read(text):
            profile._run(form, scope)
        if profile.version != 1:
            raise ProfileError("a profile begins with (version 1)")
        return profile

    def allows(self, access: Access) -> bool:
        """Whether the system lets it happen."""
        rule = self.deciding(access)
        return rule.allow if rule is not None else bool(self.default)

    def deciding(self, access: Access) -> Rule | None:
        """The rule that decides; None when the default does."""
        if access.operation not in OPERATIONS:
            raise ProfileError(f"no operation is called {access.operation}")
        for rule in reversed(self.rules):
            if any(_names(one, access.operation) for one in rule.operations) and rule.matches(access):
                return rule
        return None

    def _run(self, form: Any, scope: dict[str, Any]) -> Any:
        if isinstance(form, Symbol):
            if form not in scope:
                raise ProfileError(f"unbound variable: {form}")
            return scope[form]
        if not isinstance(form, list):
            return form
        if not form:
            raise ProfileError("an empty form")
        head = form[0]
        if isinstance(head, Symbol) and head not in scope:
            special = getattr(self, f"_do_{head.replace('-', '_').replace('?', '_p')}", None)
            if special is not None:
                return special(form, scope)
            if head in FILTERS:
                return _filter(self, form, scope)
        function = self._run(head, scope)
        if not callable(function):
            raise ProfileError(f"{head} is no function")
        return function(*(self._run(word, scope) for word in form[1:]))

    def _body(self, forms: list[Any], scope: dict[str, Any]) -> Any:
        result: Any = None
        for form in forms:
            result = self._run(form, scope)
        return result

    def _do_version(self, form: list[Any], scope: dict[str, Any]) -> None:
        self.version = form[1]

    def _do_debug(self, form: list[Any], scope: dict[str, Any]) -> None:
        """What the system should log; decides nothing."""

    def _do_define(self, form: list[Any], scope: dict[str, Any]) -> None:
        if isinstance(form[1], list):
            name, *names = form[1]
            body = form[2:]
            scope[name] = lambda *given: self._body(body, {**scope, **dict(zip(names, given, strict=True))})
        else:
            scope[form[1]] = self._run(form[2], scope)

    def _do_let(self, form: list[Any], scope: dict[str, Any]) -> Any:
        inner = {**scope, **{name: self._run(value, scope) for name, value in form[1]}}
        return self._body(form[2:], inner)

    def _do_if(self, form: list[Any], scope: dict[str, Any]) -> Any:
        if self._run(form[1], scope) is not False:
            return self._run(form[2], scope)
        return self._run(form[3], scope) if len(form) > 3 else None

    def _do_when(self, form: list[Any], scope: dict[str, Any]) -> Any:
        return self._body(form[2:], scope) if self._run(form[1], scope) is not False else None

    def _do_begin(self, form: list[Any], scope: dict[str, Any]) -> Any:
        return self._body(form[1:], scope)

    def _do_and(self, form: list[Any], scope: dict[str, Any]) -> Any:
        return all(self._run(word, scope) is not False for word in form[1:])

    def _do_or(self, form: list[Any], scope: dict[str, Any]) -> Any:
        return next((found for word in form[1:] if (found := self._run(word, scope)) is not False), False)

    def _do_defined_p(self, form: list[Any], scope: dict[str, Any]) -> bool:
        return form[1] in scope or form[1] in FILTERS or form[1] in OPERATIONS

    def _do_allow(self, form: list[Any], scope: dict[str, Any]) -> None:
        self._rule(True, form, scope)

    def _do_deny(self, form: list[Any], scope: dict[str, Any]) -> None:
        self._rule(False, form, scope)

    def _rule(self, allow: bool, form: list[Any], scope: dict[str, Any]) -> None:
        operations = [word for word in form[1:] if isinstance(word, Symbol)]
        filters = [_filter(self, word, scope) for word in form[1:] if not isinstance(word, Symbol)]
        used = [one for one in filters if one is not None]  # (with ...) only says what to log
        if not operations:
            raise ProfileError("a rule without an operation")
        if operations == ["default"]:
            self.default = allow
            return
        for name in operations:
            if not any(_names(name, known) for known in OPERATIONS):
                raise ProfileError(f"unbound variable: {name}")
        matches: Matcher = (lambda access: any(one(access) for one in used)) if used else (lambda access: True)
        self.rules.append(Rule(allow, tuple(operations), matches, _written(form)))


def _names(rule: str, operation: str) -> bool:
    return operation.startswith(rule[:-1]) if rule.endswith("*") else operation == rule


def _written(form: Any) -> str:
    if isinstance(form, list):
        return f"({' '.join(_written(word) for word in form)})"
    return str(form) if isinstance(form, (Symbol, int)) else f'"{form}"'


def _functions(parameters: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """What the Scheme of profiles offers, beside the special forms."""
    yield "param", lambda name: parameters.get(name, False)
    yield "string-append", lambda *words: "".join(words)
    yield "string-length", len
    yield "substring", lambda text, start, end: text[start:end]
    yield "string->number", lambda text: int(text) if isinstance(text, str) and text.isdigit() else False
    yield "regex-quote", re.escape
    yield "string?", lambda value: isinstance(value, str)
    yield "not", lambda value: value is False
    for name in ("equal?", "string=?", "eqv?", "eq?", "="):
        yield name, lambda one, other: one == other
    yield "<", lambda one, other: one < other
    yield ">", lambda one, other: one > other
    yield ">=", lambda one, other: one >= other
    yield "<=", lambda one, other: one <= other
    yield "+", lambda *numbers: sum(numbers)
    yield "-", lambda one, other: one - other


# -- filters ------------------------------------------------------------------------------------------------


def below(path: str, folder: str) -> bool:
    """Whether a path is a folder or in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


BY_NAME = frozenset(
    """
    sysctl-name global-name local-name ipc-posix-name extension iokit-user-client-class
    iokit-registry-entry-class xpc-service-name preference-domain
    """.split()
)
BY_PREFIX = frozenset({"sysctl-name-prefix", "global-name-prefix", "ipc-posix-name-prefix"})
FILTERS = (
    BY_NAME
    | BY_PREFIX
    | frozenset(
        """
    require-all require-any require-not with target vnode-type socket-domain remote local literal path
    path-literal subpath path-prefix prefix regex
    """.split()
    )
)

_TARGETS = {
    "self": ("self",),
    "children": ("child",),
    "same-sandbox": ("self", "child", "parent", "same-sandbox"),
    "pgrp": ("self", "pgrp"),
    "others": ("parent", "child", "pgrp", "same-sandbox", "others"),
}


def _filter(profile: Profile, form: Any, scope: dict[str, Any]) -> Matcher | None:
    if not isinstance(form, list) or not form or not isinstance(form[0], Symbol):
        raise ProfileError(f"{_written(form)} is no filter")
    head = str(form[0])
    if head in ("require-all", "require-any", "require-not"):
        inner = [one for word in form[1:] if (one := _filter(profile, word, scope)) is not None]
        if head == "require-all":
            return lambda access: all(one(access) for one in inner)
        if head == "require-any":
            return lambda access: any(one(access) for one in inner)
        return lambda access: not any(one(access) for one in inner)
    if head == "with":
        return None
    if head in scope:  # a function of the profile that makes a filter
        made: Matcher = profile._run(form, scope)
        return made
    if head == "target":
        wanted = _TARGETS.get(str(form[1]))
        if wanted is None:
            raise ProfileError(f"no target is called {form[1]}")
        return lambda access: access.target in wanted
    if head == "vnode-type":
        kinds = [str(word) for word in form[1:]]
        return lambda access: access.kind in kinds
    if head == "socket-domain":
        domains = [str(word) for word in form[1:]]
        return lambda access: access.domain in domains
    values = [profile._run(word, scope) for word in form[1:]] if head not in ("remote", "local") else form[1:]
    if head in ("remote", "local"):
        return _address(profile, head, values, scope)
    for value in values:
        if not isinstance(value, str):
            raise ProfileError(f"{head} needs a text, not {value!r}: was a parameter not given?")
    if head in ("literal", "path", "path-literal"):
        return lambda access: access.path in values
    if head in ("subpath", "path-prefix"):
        return lambda access: bool(access.path) and any(below(access.path, value) for value in values)
    if head == "prefix":
        return lambda access: bool(access.path) and access.path.startswith(tuple(values))
    if head == "regex":
        found = [re.compile(value) for value in values]
        return lambda access: bool(access.path) and any(one.search(access.path) for one in found)
    if head in BY_NAME:
        return lambda access: access.name in values
    if head in BY_PREFIX:
        return lambda access: access.name.startswith(tuple(values))
    raise ProfileError(f"unbound variable: {head}")


def _address(profile: Profile, head: str, words: list[Any], scope: dict[str, Any]) -> Matcher:
    """`(remote ip "localhost:*")`, `(remote unix-socket (path-literal P))`, `(local tcp)`."""
    kind = str(words[0])
    if kind == "unix-socket":
        inner = [_filter(profile, word, scope) for word in words[1:]]

        def unix(access: Access) -> bool:
            if not access.remote.startswith("unix-socket:"):
                return False
            path = Access(access.operation, access.remote.removeprefix("unix-socket:"))
            return not inner or any(one is not None and one(path) for one in inner)

        return unix
    if kind not in ("ip", "ip4", "ip6", "tcp", "udp", "tcp4", "udp4"):
        raise ProfileError(f"no address is written {_written(words)}")
    host, _, port = (str(words[1]) if len(words) > 1 else "*:*").rpartition(":")

    def ip(access: Access) -> bool:
        if not access.remote.startswith("ip:"):
            return False
        there, _, where = access.remote.removeprefix("ip:").rpartition(":")
        local = there in ("127.0.0.1", "::1", "localhost")
        return (host == "*" or (host == "localhost" and local)) and port in ("*", where)

    return ip
