"""The evaluator of Seatbelt's language says what macOS says: about behaviours that published profiles rely on, and,
on a Mac, about the same files under `sandbox-exec`."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.executor.profile_language import Access, Profile, ProfileError, read


def allows(text: str, operation: str, path: str = "", parameters: dict[str, str] | None = None, **about: str) -> bool:
    return Profile.parse("(version 1)" + text, parameters).allows(Access(operation, path, **about))


def test_the_last_rule_that_matches_decides() -> None:
    """Reading all, then not the home folder, then one folder of it: the common shape of coding agents' profiles."""
    text = (
        '(deny default)(allow file-read*)(deny file-read* (subpath "/Users"))(allow file-read* (subpath "/Users/a/p"))'
    )
    assert allows(text, "file-read-data", "/etc/hosts")
    assert not allows(text, "file-read-data", "/Users/a/.ssh/id")
    assert allows(text, "file-read-data", "/Users/a/p/x.py")
    assert not allows(text, "file-write-data", "/Users/a/p/x.py")


def test_default_holds_where_no_rule_matches_wherever_it_stands() -> None:
    assert allows('(allow default)(deny file-write* (subpath "/x"))', "file-write-data", "/y")
    assert allows('(allow file-read-data (literal "/x"))(deny default)', "file-read-data", "/x")


def test_a_wildcard_names_every_operation_below_it_and_no_other() -> None:
    text = '(deny default)(allow file-write* (literal "/x"))'
    assert allows(text, "file-write-unlink", "/x")
    assert not allows(text, "file-read-data", "/x")
    assert allows("(deny default)(allow process*)", "process-fork")
    assert not allows("(deny default)(allow process*)", "signal", target="same-sandbox")


def test_a_special_rule_and_a_general_one_meet_in_the_order_of_the_text() -> None:
    """Builds may write, but make nothing setuid (Nix); the order decides, not how narrow a rule is."""
    assert not allows("(deny default)(allow file-write*)(deny file-write-setugid)", "file-write-setugid", "/build/x")
    assert allows("(deny default)(deny file-write-setugid)(allow file-write*)", "file-write-setugid", "/build/x")


@pytest.mark.parametrize(
    ("rule", "inside", "outside"),
    [
        ('(literal "/a/b")', "/a/b", "/a/b/c"),
        ('(path "/a/b")', "/a/b", "/a/bc"),
        ('(subpath "/a/b")', "/a/b", "/a/bc"),
        ('(subpath "/a/b")', "/a/b/c/d", "/a"),
        ('(prefix "/tmp/cache")', "/tmp/cache-7/x", "/tmp/cach"),
        (r'(regex #"^/dev/ttys[0-9]+$")', "/dev/ttys001", "/dev/tty"),
        (r'(regex #"\.plist$")', "/a.plist", "/aplist"),
        ('(require-all (subpath "/a") (require-not (subpath "/a/secret")))', "/a/x", "/a/secret/x"),
        ('(require-any (literal "/a") (literal "/b"))', "/b", "/c"),
        ('(literal "/a") (subpath "/b")', "/b/x", "/a/x"),
    ],
)
def test_a_filter_matches(rule: str, inside: str, outside: str) -> None:
    assert allows(f"(deny default)(allow file-read-data {rule})", "file-read-data", inside)
    assert not allows(f"(deny default)(allow file-read-data {rule})", "file-read-data", outside)


def test_a_device_is_told_from_a_file_of_its_name() -> None:
    """Codex lets programs write to /dev/null only while that is a device."""
    text = '(deny default)(allow file-write-data (require-all (path "/dev/null") (vnode-type CHARACTER-DEVICE)))'
    assert allows(text, "file-write-data", "/dev/null", kind="CHARACTER-DEVICE")
    assert not allows(text, "file-write-data", "/dev/null")


@pytest.mark.parametrize(
    ("target", "reached", "not_reached"),
    [
        ("self", ["self"], ["child", "parent", "same-sandbox", "others"]),
        ("children", ["child"], ["parent", "others"]),
        ("same-sandbox", ["self", "child", "parent", "same-sandbox"], ["others"]),
        ("others", ["others", "child"], ["self"]),
    ],
)
def test_signals_reach_their_targets(target: str, reached: list[str], not_reached: list[str]) -> None:
    text = f"(deny default)(allow signal (target {target}))"
    assert all(allows(text, "signal", target=one) for one in reached)
    assert not any(allows(text, "signal", target=one) for one in not_reached)


def test_names_of_sysctls_and_services_are_exact_unless_they_are_prefixes() -> None:
    text = '(deny default)(allow sysctl-read (sysctl-name "hw.ncpu") (sysctl-name-prefix "hw.perflevel"))'
    assert allows(text, "sysctl-read", name="hw.ncpu")
    assert allows(text, "sysctl-read", name="hw.perflevel0.l2cachesize")
    assert not allows(text, "sysctl-read", name="kern.procargs2")
    assert not allows(text, "sysctl-read", name="hw.ncpus")
    assert allows("(deny default)(allow sysctl-read)", "sysctl-read", name="kern.procargs2")
    look = '(deny default)(allow mach-lookup (global-name "com.apple.logd"))'
    assert allows(look, "mach-lookup", name="com.apple.logd")
    assert not allows(look, "mach-lookup", name="com.apple.pasteboard.1")


def test_addresses_of_sockets() -> None:
    """Bazel's "block the network" lets localhost through; agents' proxies one port; Nix one socket of the resolver."""
    text = '(allow default)(deny network*)(allow network* (remote ip "localhost:*"))'
    assert allows(text, "network-outbound", remote="ip:127.0.0.1:80")
    assert not allows(text, "network-outbound", remote="ip:192.0.2.1:80")
    port = '(deny default)(allow network-outbound (remote ip "localhost:3128"))'
    assert allows(port, "network-outbound", remote="ip:::1:3128")
    assert not allows(port, "network-outbound", remote="ip:127.0.0.1:80")
    socket = '(deny default)(allow network-outbound (remote unix-socket (path-literal "/private/var/run/dns")))'
    assert allows(socket, "network-outbound", remote="unix-socket:/private/var/run/dns")
    assert not allows(socket, "network-outbound", remote="unix-socket:/private/tmp/agent")


def test_parameters_are_data_and_cannot_become_rules() -> None:
    hostile = '/x")(allow default)("'
    text = '(deny default)(allow file-read-data (subpath (param "BOX")))'
    assert not allows(text, "file-read-data", "/etc/hosts", {"BOX": hostile})
    assert allows(text, "file-read-data", hostile + "/y", {"BOX": hostile})


def test_the_scheme_around_the_rules() -> None:
    """Browsers build paths from parameters, and leave rules out for versions that lack them."""
    text = """
    (define home "HOME") ; a name
    (define (in-home rest) (string-append (param home) rest))
    (define (service) (global-name (string-append (param "ID") ".port")))
    (deny default)
    (if (param "OPEN") (allow file-read* (subpath (in-home "/open"))))
    (when (defined? 'syscall-unix) (allow file-read-data (literal (in-home "/known"))))
    (let ((place (in-home "/let"))) (allow file-read* (subpath place)))
    (allow mach-lookup (service))
    """
    given = {"HOME": "/Users/a", "ID": "org.example"}
    assert allows(text, "file-read-data", "/Users/a/known", given)
    assert allows(text, "file-read-data", "/Users/a/let/x", given)
    assert not allows(text, "file-read-data", "/Users/a/open/x", given)
    assert allows(text, "file-read-data", "/Users/a/open/x", {**given, "OPEN": "1"})
    assert allows(text, "mach-lookup", "", given, name="org.example.port")


@pytest.mark.parametrize(
    "text",
    [
        "(allow file-raed*)",  # the compiler says: unbound variable
        '(allow file-read* (subpaht "/x"))',
        '(allow file-read* (subpath (param "NOT_GIVEN")))',
        "(allow signal (target everyone))",
        "(allow",
        "(deny default))",
        '(import "bsd.sb")',
    ],
)
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(ProfileError):
        Profile.parse("(version 1)" + text)
    with pytest.raises(ProfileError):
        Profile.parse("(allow default)")


PATHS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=3).map(lambda parts: "/" + "/".join(parts))


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(["literal", "subpath"]), PATHS), max_size=6), PATHS, st.booleans()
)
def test_any_list_of_rules_is_decided_by_its_last_match(
    rules: list[tuple[bool, str, str]], path: str, default: bool
) -> None:
    words = {True: "allow", False: "deny"}
    text = f"({words[default]} default)" + "".join(
        f'({words[yes]} file-read-data ({rule} "{where}"))' for yes, rule, where in rules
    )
    expected = default
    for yes, rule, where in rules:
        within = path == where or (rule == "subpath" and (path + "/").startswith(where.rstrip("/") + "/"))
        expected = yes if within else expected
    assert allows(text, "file-read-data", path) == expected


@given(st.text(max_size=40))
def test_reading_ends_in_forms_or_in_a_profile_error(text: str) -> None:
    with contextlib.suppress(ProfileError):
        assert isinstance(read(text), list)


@pytest.mark.skipif(sys.platform != "darwin", reason="asks the real sandbox-exec")
@pytest.mark.parametrize(
    "rules",
    [
        '(allow default)(deny file-read* (subpath "{at}"))',
        '(allow default)(deny file-read* (subpath "{at}"))(allow file-read* (literal "{at}/one"))',
        '(allow default)(deny file-read-data (require-all (subpath "{at}") (require-not (literal "{at}/two"))))',
        '(allow default)(deny file-read* (regex #"/two$"))',
        '(allow default)(deny file-read-data (literal "{at}/one"))(allow file-read*)',
        '(allow default)(allow file-read*)(deny file-read-data (prefix "{at}/o"))',
    ],
)
def test_the_evaluator_agrees_with_this_mac(rules: str, tmp_path: Path) -> None:
    at = tmp_path.resolve()
    text = "(version 1)" + rules.format(at=at)
    for name in ("one", "two"):
        (at / name).write_text(name)
        done = subprocess.run(
            ["/usr/bin/sandbox-exec", "-p", text, "/bin/cat", str(at / name)], capture_output=True, timeout=20
        )
        assert (done.returncode == 0) == Profile.parse(text).allows(Access("file-read-data", str(at / name)))
