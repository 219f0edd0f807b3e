"""Confinement of one slot, per operating system. Loaded in the zygote, before any program is.

Every layer is optional: each function tries one mechanism and says what came of it, so that a missing one is
reported instead of silently replaced. Nothing here uses the package; ctypes reaches the system calls that the
standard library does not wrap.

Sources: Linux man pages unshare(2), pivot_root(2), seccomp(2), landlock(7), capabilities(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import signal
import struct
import sys
from collections.abc import Callable, Iterable

LINUX = sys.platform.startswith("linux")
DARWIN = sys.platform == "darwin"
FIRST_UID = 61184  # programs of root's slots run as FIRST_UID + slot; 61184-65519 is reserved for such transient use
BOX_BYTES = 64 << 20

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1,
    2,
    4,
    8,
    32,
    4096,
    16384,
    1 << 18,
)
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 22, 24, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, *arguments: int) -> int:
    words = [ctypes.c_ulong(word) for word in (*arguments, 0, 0, 0, 0)[:4]]
    return _check(_libc.prctl(option, *words), f"prctl {option}")


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    _check(
        _libc.mount(
            source.encode(),
            target.encode(),
            kind.encode() if kind else None,
            ctypes.c_ulong(flags),
            data.encode() if data else None,
        ),
        f"mount {target}",
    )


# ---------------------------------------------------------------------------------------------- namespaces (Linux)


def namespaces() -> list[str]:
    """Enter fresh namespaces: mount, pid (for children), network, ipc, host name; and user unless root does without.

    Returns their names. Raises OSError when the kernel or the distribution forbids them, which may be halfway: Ubuntu
    24.04's AppArmor lets `unshare` succeed and refuses the maps. Try it in a process that can be thrown away
    (`attempt`) before the one that matters.
    """
    spaces = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
    names = ["mount", "pid", "network", "ipc", "uts"]
    if os.geteuid() == 0 and _libc.unshare(spaces) == 0:
        return names
    uid, gid = os.geteuid(), os.getegid()
    _check(_libc.unshare(spaces | CLONE_NEWUSER), "unshare")
    # The map keeps the uid as it is: programs must not see themselves as root of anything.
    for path, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{path}", "w") as file:
            file.write(text)
    return ["user", *names]


def attempt(action: Callable[[], object], seconds: float = 10.0) -> None:
    """Do `action` in a forked process and throw that away. Raises OSError with the reason when it failed there.

    For steps that cannot be undone and may fail halfway, such as entering namespaces. The process is ended after
    `seconds`.
    """
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        said = b""
        try:
            os.close(read)
            action()
        except BaseException as error:
            said = str(error).encode("utf-8", "backslashreplace")[:500] or b"it failed without a word"
        with contextlib.suppress(OSError):
            os.write(write, said + b"\0")
        os._exit(0)
    os.close(write)
    said = b""
    try:
        if select.select([read], [], [], seconds)[0]:
            said = os.read(read, 4096)
    finally:
        os.close(read)
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if said != b"\0":
        raise OSError(said.rstrip(b"\0").decode("utf-8", "replace") or "the trial ended without a word")


def scatter_pids() -> None:
    """Start the process numbers of this pid namespace at a random place, while its init still has the right to.

    A program can see how far they have got, and move them by starting threads. Two slots must not be in step by
    accident, or a program that returns its number would look deterministic.
    """
    with contextlib.suppress(OSError), open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(300 + int.from_bytes(os.urandom(2), "big") % 20000))


def _scatter_files(folder: str) -> None:
    """The same for the numbers of the files in a fresh tmpfs, which counts them up from one."""
    for _ in range(os.urandom(1)[0]):
        os.close(os.open(f"{folder}/x", os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600))
        os.unlink(f"{folder}/x")


def readable_paths(extra: Iterable[str]) -> list[str]:
    """What a Python program needs to see: the interpreter's own installation and the system's libraries."""
    wanted = [
        "/usr/lib",
        "/usr/lib32",
        "/usr/lib64",
        "/lib",
        "/lib32",
        "/lib64",
        "/usr/share/zoneinfo",
        "/etc/ld.so.cache",
    ]
    wanted += ["/nix/store", *extra]
    for prefix in {sys.base_prefix, sys.base_exec_prefix}:
        # A prefix of /usr is the whole distribution; its Python lives in /usr/lib, which is there already.
        wanted += [prefix] if prefix not in ("/usr", "/") else []
    return [path for path in dict.fromkeys(wanted) if os.path.lexists(path)]


def new_root(box: str, extra: Iterable[str] = ()) -> None:
    """Replace the file system by a small read-only one: Python, shared libraries, four devices, and a private /box.

    `box` names an empty directory outside that serves as the mount point. Raises OSError.
    """
    os.umask(0o022)  # programs may run as another user and must get through these folders
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    root = box
    _mount("azr", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m")
    for path in readable_paths(extra):
        target = root + path
        if os.path.islink(path) and path.count("/") == 1:
            os.symlink(os.readlink(path), target)  # /lib -> usr/lib
            continue
        source = os.path.realpath(path)
        os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
        if os.path.isdir(source):
            os.makedirs(target, mode=0o755, exist_ok=True)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
        _mount(source, target, None, MS_BIND | MS_REC)
        with contextlib.suppress(OSError):  # a locked mount below a user namespace keeps its own flags
            _mount("none", target, None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.makedirs(root + "/dev", exist_ok=True)
    for device in ("null", "zero", "random", "urandom"):
        os.close(os.open(f"{root}/dev/{device}", os.O_CREAT | os.O_WRONLY, 0o666))
        _mount(f"/dev/{device}", f"{root}/dev/{device}", None, MS_BIND)
        with contextlib.suppress(OSError):  # or a program could set the times of the machine's own /dev/null
            flags = MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NOEXEC
            _mount("none", f"{root}/dev/{device}", None, flags)
    os.makedirs(root + "/box", exist_ok=True)
    os.makedirs(root + "/tmp", exist_ok=True)
    os.chdir(root)
    _check(_libc.syscall(_NUMBERS["pivot_root"], b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")
    options = f"mode=0700,size={BOX_BYTES},nr_inodes=4096"
    _mount("box", "/box", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
    _scatter_files("/box")
    os.symlink("/box", "/tmp/box")  # /tmp itself stays empty and read-only
    _mount("none", "/", None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID)
    os.umask(0o077)


# ---------------------------------------------------------------------------------------------- privileges (Linux)


def drop_capabilities() -> None:
    """Give up every capability, now and for whatever is executed later."""
    with contextlib.suppress(OSError):
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in range(64):
        if _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) != 0:
            break
    header = struct.pack("<Ii", 0x20080522, 0)
    _check(_libc.capset(header, bytes(24)), "capset")


def drop_uid(uid: int) -> None:
    """Leave root for an id that owns nothing. Raises OSError."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


# ------------------------------------------------------------------------------------------------ landlock (Linux)

_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}


def landlock_ruleset(read: Iterable[str], write: Iterable[str]) -> tuple[int, int]:
    """A ruleset that allows reading below `read` and everything but executing below `write`: (fd, ABI version).

    From ABI 4 it also denies TCP, from ABI 6 signals to and abstract sockets of processes outside. Raises OSError.
    """
    abi = _check(_libc.syscall(444, None, ctypes.c_size_t(0), 1), "landlock")
    rights = _RIGHTS[min(abi, 5)]
    attributes = struct.pack("<QQQ", rights, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    attributes = attributes[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    ruleset = _check(_libc.syscall(444, attributes, ctypes.c_size_t(len(attributes)), 0), "landlock_create_ruleset")
    os.set_inheritable(ruleset, False)
    for paths, allowed in ((read, _READ_FILE | _READ_DIR), (write, rights & ~1)):
        for path in paths:
            try:
                handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue
            is_directory = os.path.isdir(path)
            mask = allowed if is_directory else allowed & (_READ_FILE | (1 << 1) | (1 << 14) | (1 << 15)) & rights
            rule = struct.pack("<Qi", mask, handle)
            try:
                _check(_libc.syscall(445, ruleset, 1, rule, 0), "landlock_add_rule")
            finally:
                os.close(handle)
    return ruleset, abi


def landlock_restrict(ruleset: int) -> None:
    """Bind this process to the ruleset, for ever. Needs no_new_privs. Raises OSError."""
    _check(_libc.syscall(446, ruleset, 0), "landlock_restrict_self")


# ------------------------------------------------------------------------------------------------- seccomp (Linux)

_MACHINE = os.uname().machine
_X86 = _MACHINE in ("x86_64", "amd64")
_ARCH = 0xC000003E if _X86 else 0xC00000B7
# The names of x86_64 and of the generic table (aarch64). A name without a number there does not exist there.
_TABLE = """
fork 57 -; vfork 58 -; clone 56 220; clone3 435 435; execve 59 221; execveat 322 281; ptrace 101 117;
process_vm_readv 310 270; process_vm_writev 311 271; process_madvise 440 440; kcmp 312 272;
kill 62 129; tkill 200 130; tgkill 234 131; rt_sigqueueinfo 129 138; rt_tgsigqueueinfo 297 240;
pidfd_send_signal 424 424; pidfd_open 434 434; pidfd_getfd 438 438; setsid 112 157; setpgid 109 154;
socket 41 198; connect 42 203; bind 49 200; listen 50 201; accept 43 202; accept4 288 242; sendto 44 206;
sendmsg 46 211; sendmmsg 307 269; socketpair 53 199;
unshare 272 97; setns 308 268; mount 165 40; umount2 166 39; pivot_root 155 41; chroot 161 51;
open_tree 428 428; move_mount 429 429; fsopen 430 430; fsconfig 431 431; fsmount 432 432; fspick 433 433;
mount_setattr 442 442; bpf 321 280; perf_event_open 298 241; userfaultfd 323 282;
io_uring_setup 425 425; io_uring_enter 426 426; io_uring_register 427 427; io_setup 206 0; io_submit 209 2;
add_key 248 217; request_key 249 218; keyctl 250 219; kexec_load 246 104; kexec_file_load 320 294;
init_module 175 105; finit_module 313 273; delete_module 176 106; reboot 169 142; swapon 167 224; swapoff 168 225;
acct 163 89; quotactl 179 60; syslog 103 116; sethostname 170 161; setdomainname 171 162;
settimeofday 164 170; clock_settime 227 112; clock_adjtime 305 266; adjtimex 159 171;
iopl 172 -; ioperm 173 -; modify_ldt 154 -; personality 135 92; uselib 134 -; vhangup 153 58; lookup_dcookie 212 18;
nfsservctl 180 42; name_to_handle_at 303 264; open_by_handle_at 304 265; fanotify_init 300 262;
inotify_init1 294 26; inotify_init 253 -; shmget 29 194; shmat 30 196; shmctl 31 195; semget 64 190;
semctl 66 191; semop 65 193;
msgget 68 186; msgsnd 69 189; msgrcv 70 188; msgctl 71 187; mq_open 240 180; mq_unlink 241 181;
memfd_create 319 279; memfd_secret 447 447; mlock 149 228; mlock2 325 284; mlockall 151 230;
setuid 105 146; setgid 106 144; setreuid 113 145; setregid 114 143; setresuid 117 147; setresgid 119 149;
setgroups 116 159; setfsuid 122 151; setfsgid 123 152; capset 126 91;
sched_setaffinity 203 122; sched_setscheduler 144 119; sched_setparam 142 118;
sched_setattr 314 274; setpriority 141 140;
ioprio_set 251 30; migrate_pages 256 238; move_pages 279 239; mbind 237 235; set_mempolicy 238 237;
vmsplice 278 75; splice 275 76; tee 276 77; seccomp 317 277; landlock_add_rule 445 445; mknod 133 -; mknodat 259 33;
prctl 157 167; prlimit64 302 261; ioctl 16 29; fcntl 72 25; setxattr 188 5; lsetxattr 189 6; fsetxattr 190 7;
setxattrat 463 463; file_setattr 469 469; shmdt 67 197; semtimedop 220 192; sync 162 81; syncfs 306 267;
open_tree_attr 467 467; statmount 457 457; listmount 458 458; process_mrelease 448 448;
set_mempolicy_home_node 450 450; quotactl_fd 443 443; lsm_set_self_attr 460 460;
chmod 90 -; fchmod 91 52; fchmodat 268 53; fchmodat2 452 452; chown 92 -; fchown 93 55; lchown 94 -; fchownat 260 54;
utime 132 -; utimes 235 -; futimesat 261 -; utimensat 280 88; getxattr 191 8; lgetxattr 192 9; fgetxattr 193 10;
listxattr 194 11; llistxattr 195 12; flistxattr 196 13; removexattr 197 14; lremovexattr 198 15; fremovexattr 199 16;
getxattrat 464 464; listxattrat 465 465; removexattrat 466 466; readlink 89 -; readlinkat 267 78; truncate 76 45;
fallocate 285 47
"""
_NUMBERS: dict[str, int] = {}
for _entry in _TABLE.split(";"):
    _word, _first, _second = _entry.split()
    _number = _first if _X86 else _second
    if _number != "-":
        _NUMBERS[_word] = int(_number)

_LD, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_DENY, _ABSENT = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
# What the zygote itself still needs, and its children do not.
_CHILD_ONLY = """
fork vfork rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal pidfd_open tkill setsid setpgid
setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid capset seccomp
""".split()  # noqa: SIM905
# What landlock does not govern (metadata of files, links, on old kernels truncation), and the one call that takes
# gigabytes from a disk in a moment. Denied to programs that see the machine's own files; the zygote cleans up by them.
_ON_FILES = """
chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes futimesat utimensat
getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr
getxattrat listxattrat removexattrat readlink readlinkat truncate fallocate
""".split()  # noqa: SIM905
_BY_ARGUMENT = ("clone", "clone3", "kill", "tgkill", "prctl", "prlimit64", "ioctl", "fcntl", "socketpair")
# Commands of fcntl that leave nothing behind and signal nobody: descriptors, flags, locks, seals, and reading. Not
# F_SETOWN, F_SETSIG, F_SETOWN_EX (a signal to any process of the user), leases and notifications, sizes of pipes (a
# quota of the user), hints (they stay on the file).
_FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 16, 36, 37, 38, 1025, 1030, 1032, 1033, 1034, 1035)
_F_SETFL, _O_ASYNC = 4, 0x2000
# TCGETS, TCGETS2, TIOCGPGRP, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX: what Python's own files and sockets ask.
_IOCTL = (0x5401, 0x802C542A, 0x540F, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)


def seccomp_supported() -> bool:
    """Whether the filters know this machine's system call numbers."""
    return LINUX and _MACHINE in ("x86_64", "amd64", "aarch64", "arm64")


class _Filter:
    """A BPF program in the making. Every part of it leaves the system call's number loaded, or returns."""

    def __init__(self) -> None:
        self.code: list[tuple[int, int, int, int]] = []
        self.put(_LD, 4)
        self.put(_JEQ, _ARCH, 1, 0)
        self.put(_RET, _KILL)
        self.put(_LD, 0)
        if _X86:  # the x32 numbers would walk around every rule
            self.put(_JGE, 0x40000000, 0, 1)
            self.put(_RET, _KILL)

    def put(self, operation: int, value: int, yes: int = 0, no: int = 0) -> None:
        self.code.append((operation, yes, no, value))

    def deny(self, names: Iterable[str], answer: int = _DENY) -> None:
        for name in names:
            if name in _NUMBERS:
                self.put(_JEQ, _NUMBERS[name], 0, 1)
                self.put(_RET, answer)

    def argument(self, name: str, index: int, good: Iterable[int], otherwise: int, answer: int) -> None:
        """One system call, by the low half of an argument: `answer` if it is one of `good`, else `otherwise`."""
        values = list(good)
        self.put(_JEQ, _NUMBERS[name], 0, len(values) + 3)
        self.put(_LD, 16 + 8 * index)
        for place, value in enumerate(values):
            self.put(_JEQ, value, len(values) - place, 0)
        self.put(_RET, otherwise)
        self.put(_RET, answer)

    def no_flag(self, name: str, index: int, value: int, second: int, flags: int, answer: int) -> None:
        """`answer` to a system call whose argument `index` is `value` and whose `second` has one of `flags`."""
        self.put(_JEQ, _NUMBERS[name], 0, 6)
        self.put(_LD, 16 + 8 * index)
        self.put(_JEQ, value, 0, 3)
        self.put(_LD, 16 + 8 * second)
        self.put(_JSET, flags, 0, 1)
        self.put(_RET, answer)
        self.put(_LD, 0)

    def bytes(self) -> bytes:
        self.put(_RET, _ALLOW)
        return b"".join(struct.pack("<HBBI", *instruction) for instruction in self.code)


def zygote_filter() -> bytes:
    """The BPF program for a zygote and all that it forks: everything is allowed except a list.

    A list of denials rather than of permissions, because a new libc may need a new harmless call at any time, while
    what can harm is known: other programs, sockets, namespaces, mounts, tracing, key rings, System V IPC, and kernel
    interfaces with a history of holes (io_uring, bpf, userfaultfd, splice). `EPERM` lets a program fail with an
    ordinary exception.
    """
    made = _Filter()
    later = {*_CHILD_ONLY, *_ON_FILES, *_BY_ARGUMENT}
    made.deny(name for name in _NUMBERS if name not in later)
    made.argument("socketpair", 0, [1], _DENY, _ALLOW)  # AF_UNIX pairs reach nobody else; asyncio needs one
    made.argument("ioctl", 1, _IOCTL, _DENY, _ALLOW)
    made.no_flag("fcntl", 1, _F_SETFL, 2, _O_ASYNC, _DENY)
    made.argument("fcntl", 1, _FCNTL, _DENY, _ALLOW)
    return made.bytes()


def child_filter(alone: bool, own_root: bool) -> bytes:
    """The second program, for the child only, kept short since it is installed for every program that runs.

    No new process, no new session or identity, no signal to others (`alone` says that a pid namespace sees to that),
    and no metadata of files unless the file system holds nothing of the user's (`own_root`).
    `clone` may make threads only; `clone3` must say ENOSYS, as its flags are in memory that a filter cannot read and
    libc then falls back to `clone`, whose flags it can.
    """
    made = _Filter()
    made.deny(_CHILD_ONLY if not alone else [name for name in _CHILD_ONLY if "sig" not in name and name != "tkill"])
    if not own_root:
        made.deny(_ON_FILES)
    made.deny(["clone3"], _ABSENT)
    made.put(_JEQ, _NUMBERS["clone"], 0, 5)
    made.put(_LD, 16)
    made.put(_JSET, 0x7E020000, 2, 0)  # namespace flags
    made.put(_JSET, 0x00010000, 0, 1)  # CLONE_THREAD
    made.put(_RET, _ALLOW)
    made.put(_RET, _DENY)
    if not alone:
        made.argument("kill", 0, [_PID_MARK], _DENY, _ALLOW)  # abort() and raise() signal their own process
        made.argument("tgkill", 0, [_PID_MARK], _DENY, _ALLOW)
    made.argument("prctl", 0, [15, 16, 0x53564D41], _DENY, _ALLOW)  # names of threads and of memory areas
    made.argument("prlimit64", 0, [0, _PID_MARK], _DENY, _ALLOW)
    return made.bytes()


_PID_MARK = 0x50494421  # stands for the child's own pid until `Seccomp.install` knows it


class Seccomp:
    """A filter ready to be installed: what can be done before the fork is done."""

    def __init__(self, program: bytes) -> None:
        mark = struct.pack("<I", _PID_MARK)
        self._buffer = ctypes.create_string_buffer(program, len(program))
        self._header = struct.pack("@HP", len(program) // 8, ctypes.addressof(self._buffer))
        self._marks = [at + 4 for at in range(0, len(program), 8) if program[at + 4 : at + 8] == mark]
        self._two, self._nought = ctypes.c_ulong(2), ctypes.c_ulong(0)

    def install(self) -> None:
        """Bind this process, for ever. Needs no_new_privs. Raises OSError."""
        if self._marks:
            pid = struct.pack("<I", os.getpid())
            for at in self._marks:
                ctypes.memmove(ctypes.addressof(self._buffer) + at, pid, 4)
        _check(_libc.prctl(PR_SET_SECCOMP, self._two, self._header, self._nought, self._nought), "seccomp")


# -------------------------------------------------------------------------------------------------------- macOS


def footprint(pid: int) -> tuple[int, float]:
    """Physical footprint in bytes and processor time in seconds of a process on macOS.

    proc_pid_rusage(RUSAGE_INFO_V2) of <libproc.h>. The footprint counts compressed pages, which the resident size
    leaves out, and it is what the system itself kills by. Times are in ticks of mach_absolute_time. Raises
    ProcessLookupError when there is no such process, PermissionError or another OSError when the call is refused.
    """
    words = (ctypes.c_uint64 * 32)()  # 16 bytes of uuid, then ri_user_time, ri_system_time, ...
    if _libc.proc_pid_rusage(pid, 2, ctypes.byref(words)) != 0:
        number = ctypes.get_errno() or errno.EPERM
        raise OSError(number, f"proc_pid_rusage: {os.strerror(number)}")
    # uuid (2 words), user, system, pkg_idle_wkups, interrupt_wkups, pageins, wired, resident, phys_footprint
    return int(words[9]), (words[2] + words[3]) * _tick()


def task_threads(pid: int) -> int:
    """Threads of a process on macOS, 0 when that cannot be seen: pti_threadnum of proc_pidinfo(PROC_PIDTASKINFO)."""
    words = (ctypes.c_int32 * 24)()  # struct proc_taskinfo: six of 64 bits, then twelve of 32, of which it is the tenth
    if _libc.proc_pidinfo(pid, 4, ctypes.c_uint64(0), ctypes.byref(words), ctypes.sizeof(words)) <= 0:
        return 0
    return int(words[12 + 9])


def process_arguments(pid: int) -> bytes:
    """Arguments and environment of a process on macOS, sysctl KERN_PROCARGS2. Raises OSError."""
    name = (ctypes.c_int * 3)(1, 49, pid)  # CTL_KERN, KERN_PROCARGS2
    size = ctypes.c_size_t(1 << 16)
    buffer = ctypes.create_string_buffer(size.value)
    _check(_libc.sysctl(name, 3, buffer, ctypes.byref(size), None, ctypes.c_size_t(0)), "sysctl kern.procargs2")
    return buffer.raw[: size.value]


def minherit_none(start: ctypes.c_char, length: int) -> bool:
    """Leave memory out of what a fork copies, on macOS: minherit(VM_INHERIT_NONE)."""
    try:
        return bool(_libc.minherit(ctypes.byref(start), ctypes.c_size_t(length), 2) == 0)
    except AttributeError:
        return False


def remove_acl(path: str) -> None:
    """Give a file on macOS an empty access control list, without following a link. Raises nothing."""
    try:
        _libc.acl_init.restype = ctypes.c_void_p
        empty = _libc.acl_init(1)
        if empty:
            _libc.acl_set_link_np(os.fsencode(path), 0x100, ctypes.c_void_p(empty))  # ACL_TYPE_EXTENDED
            _libc.acl_free(ctypes.c_void_p(empty))
    except AttributeError:
        pass


def _tick() -> float:
    if not _TICK:
        base = (ctypes.c_uint32 * 2)()
        _libc.mach_timebase_info(ctypes.byref(base))
        _TICK.append(base[0] / base[1] * 1e-9 if base[1] else 1e-9)
    return _TICK[0]


_TICK: list[float] = []
