"""Hostile programs as data: what each does, and which endings count as contained.

No pytest here: the ordinary-user run imports this file with the system's Python. Programs that could hurt a machine
whose sandbox fails are bounded: at most 150 children that exit by themselves, a few GB, named pids only.
`@CANARY@`, `@PORT@`, ... are filled in by the test.
"""

# ruff: noqa: E501  a program stays on one line
from __future__ import annotations

from dataclasses import dataclass, field

OK, EXCEPTION, TIMEOUT, MEMORY = "ok", "exception", "timeout", "memory"
OUTPUT, KILLED, EXITED, FORBIDDEN, BAD = "output-limit", "killed", "exited-early", "forbidden", "bad-result"


@dataclass(frozen=True)
class Attack:
    """`number` is that of the design's list; `status` what may come of it; `wall` the limit in seconds."""

    number: int
    name: str
    program: str
    status: tuple[str, ...]
    wall: float = 2.0
    cpu: float = 2.0
    memory: int = 256
    detail: str = ""
    honest: object = field(default=None)  # a value that must not come back


def _f(body: str, before: str = "") -> str:
    lines = "\n".join("    " + line for line in body.strip("\n").split("\n"))
    return f"{before}\ndef f(a):\n{lines}\n"


SWALLOW = """
while True:
    try:
        while True:
            pass
    except BaseException:
        pass
"""
FORKS = {
    "os.fork": "for _ in range(150):\n    if os.fork() == 0: os._exit(0)\nreturn 1",
    "posix.fork": "import posix\nfor _ in range(150):\n    if posix.fork() == 0: posix._exit(0)\nreturn 1",
    "subprocess": "import subprocess\nreturn subprocess.run(['/bin/true']).returncode",
    "os.system": "return 1 / (os.system('true') == 0)",
    "multiprocessing": "import multiprocessing as m\np = m.get_context('fork').Process(target=len)\np.start()\nreturn 1",
    "ctypes fork": "import ctypes\nif ctypes.CDLL(None).fork() == -1: raise PermissionError(1, 'no')\nos._exit(0)",
    "ctypes vfork": "import ctypes\nif ctypes.CDLL(None).vfork() == -1: raise PermissionError(1, 'no')\nos._exit(0)",
    "raw clone": (
        "import ctypes\nl = ctypes.CDLL(None)\nn = 56 if os.uname().machine == 'x86_64' else 220\n"
        "r = l.syscall(n, 17, 0, 0, 0, 0)\nif r == 0: os._exit(0)\nif r == -1: raise PermissionError(1, 'no')\nreturn r"
    ),
    "clone of a new user namespace with a thread flag": (
        "import ctypes\nl = ctypes.CDLL(None)\nn = 56 if os.uname().machine == 'x86_64' else 220\n"
        "r = l.syscall(n, 0x10010000 | 17, 0, 0, 0, 0)\nif r == 0: os._exit(0)\n"
        "if r == -1: raise PermissionError(1, 'no')\nreturn r"
    ),
    "clone3": (
        "import ctypes\nl = ctypes.CDLL(None, use_errno=True)\nb = (ctypes.c_uint64 * 11)()\nb[4] = 17\n"
        "r = l.syscall(435, b, 88)\nif r == 0: os._exit(0)\nif r == -1: raise PermissionError(1, 'no')\nreturn r"
    ),
    "double fork": "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        import time; time.sleep(20)\n    os._exit(0)\nreturn 1",
}

ATTACKS = [
    Attack(1, "busy loop", _f("while True: pass"), (TIMEOUT,), detail="cpu", wall=4, cpu=0.5),
    Attack(2, "sleep", _f("import time\ntime.sleep(1e6)"), (TIMEOUT,), detail="wall", wall=0.5),
    Attack(3, "huge power", _f("return len(str(10**10**8))"), (TIMEOUT, MEMORY, EXCEPTION), wall=1, cpu=1),
    Attack(3, "regular expression", _f("import re\nre.match('(a+)+$', 'a' * 40 + 'b')"), (TIMEOUT,), wall=1, cpu=0.5),
    Attack(5, "swallowed exceptions", _f(SWALLOW), (TIMEOUT,), wall=2, cpu=0.5),
    Attack(
        6,
        "signals ignored and blocked",
        _f(
            "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n    except Exception: pass\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass"
        ),
        (TIMEOUT,),
        wall=2,
        cpu=0.5,
    ),
    Attack(
        7,
        "processor limit lifted",
        _f("import resource\nresource.setrlimit(resource.RLIMIT_CPU, (-1, -1))"),
        (EXCEPTION, FORBIDDEN),
    ),
    Attack(
        8,
        "thread that never ends",
        _f("import threading\ndef g():\n    while True: pass\nthreading.Thread(target=g).start()\nreturn 7"),
        (OK,),
    ),
    Attack(
        9,
        "many threads that spin",
        _f(
            "import threading\ndef g():\n    while True: pass\nfor _ in range(20): threading.Thread(target=g).start()\ng()"
        ),
        (TIMEOUT, EXCEPTION),
        wall=2,
        cpu=0.5,
    ),
    Attack(10, "ten megabytes of source", "def f(a):\n    return 1\n" + "#" * 10_000_000, (OK,), wall=5),
    Attack(10, "nested brackets", "def f(a):\n    return " + "(" * 5000 + ")" * 5000, (EXCEPTION, MEMORY)),
    Attack(
        10,
        "long function",
        "def f(a):\n" + "    a += 1\n" * 100_000 + "    return a",
        (OK, TIMEOUT, MEMORY),
        wall=5,
        cpu=5,
    ),
    Attack(10, "constant folding", "def f(a):\n    return len('a' * 10**9)", (MEMORY,)),
    Attack(10, "deep unary operators", "def f(a):\n    return " + "-" * 100_000 + "1", (EXCEPTION, MEMORY, KILLED)),
    Attack(11, "eight gigabytes at once", _f("return len(bytearray(8 << 30))"), (MEMORY,)),
    Attack(12, "doubling list", _f("x = [0]\nwhile True: x += x"), (MEMORY,)),
    Attack(12, "many small dicts", _f("x = []\nwhile True: x.append({1: 2})"), (MEMORY,), wall=10, cpu=10),
    Attack(
        12,
        "anonymous maps",
        _f(
            "import mmap\nx = []\nwhile True:\n    m = mmap.mmap(-1, 1 << 26)\n    m[:] = b'x' * (1 << 26)\n    x.append(m)"
        ),
        (MEMORY, FORBIDDEN, EXCEPTION),
        wall=5,
        cpu=5,
    ),
    Attack(
        12,
        "memory in files of no folder",
        _f("x = []\nwhile True: x.append(os.memfd_create('x'))", "import os"),
        (FORBIDDEN,),
    ),
    Attack(
        13,
        "deep recursion",
        _f("import sys\nsys.setrecursionlimit(10**8)\ndef g(n): return g(n + 1)\nreturn g(0)"),
        (EXCEPTION, KILLED, TIMEOUT, MEMORY),
        wall=3,
        cpu=3,
    ),
    Attack(
        13,
        "recursion in C",
        _f("import sys\nsys.setrecursionlimit(10**8)\nx = []\nfor _ in range(10**5): x = [x]\nreturn len(repr(x))"),
        (EXCEPTION, KILLED, TIMEOUT, MEMORY),
        wall=3,
        cpu=3,
    ),
    Attack(
        16,
        "long chain of tuples",
        _f("x = ()\nfor _ in range(10**6): x = (x,)\ndel x\nimport gc\nfor _ in range(20): gc.collect()\nreturn 1"),
        (OK, TIMEOUT, KILLED),
        wall=4,
        cpu=4,
    ),
    Attack(17, "print flood", _f("while True: print('x' * 1000)"), (OUTPUT,)),
    Attack(17, "flood without newline", _f("import sys\nwhile True: sys.stderr.write('x' * 100000)"), (OUTPUT,)),
    Attack(17, "flood through the descriptor", _f("while True: os.write(1, b'x' * 65536)", "import os"), (OUTPUT,)),
    Attack(19, "giant text", _f("return 'a' * 10**8"), (BAD,), detail="too large"),
    Attack(19, "text beyond memory", _f("return 'a' * 10**9"), (MEMORY,)),
    Attack(19, "list that contains itself", _f("x = []\nx.append(x)\nreturn x"), (BAD,), detail="too deep"),
    Attack(
        19,
        "one object a million times",
        _f("x = [1]\nfor _ in range(40): x = [x, x]\nreturn x"),
        (BAD,),
        detail="too large",
    ),
    Attack(23, "null byte", "def f(a):\n    return 1\0", (EXCEPTION, OK)),
    Attack(23, "byte order mark", "\ufeffdef f(a):\n    return 1", (EXCEPTION, OK)),
    Attack(23, "carriage returns and form feeds", "def f(a):\r\n\x0c    return 1\r", (EXCEPTION, OK)),
    Attack(23, "coding cookie", "# -*- coding: utf-7 -*-\ndef f(a):\n    return 1", (EXCEPTION, OK)),
    Attack(23, "lone surrogate in the source", "def f(a):\n    return '\ud800'", (EXCEPTION, OK)),
    Attack(26, "os._exit at import", "import os\nos._exit(0)", (EXITED,)),
    Attack(26, "os._exit in f", _f("import os\nos._exit(0)"), (EXITED,)),
    Attack(
        26,
        "os._exit in a thread",
        _f("import os, threading, time\nthreading.Thread(target=lambda: os._exit(0)).start()\ntime.sleep(5)\nreturn 1"),
        (EXITED,),
    ),
    Attack(26, "sys.exit", _f("import sys\nsys.exit(0)"), (EXITED,)),
    Attack(26, "raise SystemExit", "raise SystemExit(0)", (EXITED,)),
    Attack(
        26,
        "sys.exit in a thread",
        _f("import sys, threading\nt = threading.Thread(target=sys.exit)\nt.start()\nt.join()\nreturn 1"),
        (OK,),
    ),
    Attack(
        27,
        "always-equal object",
        _f("return E()", "class E:\n    def __eq__(s, o): return True\n    def __hash__(s): return 1"),
        (BAD,),
    ),
    Attack(
        27,
        "always-equal int",
        _f("return E(3)", "class E(int):\n    def __eq__(s, o): return True\n    __hash__ = int.__hash__"),
        (BAD,),
    ),
    Attack(
        27,
        "always-equal text in a list",
        _f("return [E('x')]", "class E(str):\n    def __eq__(s, o): return True\n    __hash__ = str.__hash__"),
        (BAD,),
    ),
    Attack(
        27,
        "lying __class__",
        _f("return E()", "class E:\n    @property\n    def __class__(s): return int\n    def __int__(s): return 1"),
        (BAD,),
    ),
    Attack(
        27,
        "metaclass with hooks",
        _f(
            "return E()",
            "class M(type):\n    def __eq__(c, o): return True\n    __hash__ = type.__hash__\n    @property\n    def __name__(c): raise SystemExit(0)\nclass E(metaclass=M): pass",
        ),
        (BAD,),
    ),
    Attack(
        28,
        "built-ins overwritten",
        _f(
            "return 1",
            "import builtins\nfor n in ('type', 'isinstance', 'len', 'repr', 'str', 'int', 'print'):\n    setattr(builtins, n, lambda *a, **k: exit(0))",
        ),
        (OK, EXCEPTION, BAD, EXITED),
    ),
    Attack(
        30,
        "walking the frames for expected values",
        _f(
            "import sys\nr = []\ng = sys._getframe()\nwhile g:\n    r += [repr(v)[:2000] for v in g.f_locals.values()]\n    g = g.f_back\nreturn '@TERCES@'[::-1] in ''.join(r)"
        ),
        (OK, BAD, EXCEPTION),
        honest=True,
    ),
    Attack(
        30,
        "walking the heap for expected values",
        _f(
            "import gc\nw = '@TERCES@'\nreturn any(w[::-1] in repr(list(o.values())[:50])[:10000] for o in gc.get_objects() if type(o) is dict)"
        ),
        (OK, EXCEPTION, TIMEOUT, MEMORY),
        honest=True,
    ),
    Attack(
        32,
        "inherited descriptors",
        _f(
            "import os, stat\nr = []\nfor i in range(4, 256):\n    try:\n        os.fstat(i); r.append(i)\n    except OSError: pass\nreturn 1 / (not r)"
        ),
        (OK,),
    ),
    Attack(
        32,
        "descriptors by name",
        _f("import os\nreturn os.listdir('/proc/self/fd') + os.listdir('/dev/fd')"),
        (FORBIDDEN, EXCEPTION),
    ),
    Attack(
        34,
        "pickle on the result pipe",
        _f(
            "import os, pickle\nclass P:\n    def __reduce__(s): return os.system, ('touch @CANARY@/pwn',)\nos.write(3, pickle.dumps(P()))\nos._exit(0)"
        ),
        (EXITED, BAD),
    ),
    Attack(34, "noise on the result pipe", _f("import os\nos.write(3, os.urandom(5000))\nreturn 1"), (BAD, EXITED, OK)),
    Attack(
        34,
        "endless result",
        _f("import os\nos.write(3, b'\\xff\\xff\\xff\\x7fo')\nwhile True: os.write(3, b'x' * 65536)"),
        (BAD,),
    ),
    Attack(34, "result pipe closed", _f("import os\nos.close(3)\nreturn 1"), (EXITED, EXCEPTION)),
    *[
        Attack(37, f"fork by {name}", _f(body, "import os"), (FORBIDDEN, EXCEPTION, KILLED))
        for name, body in FORKS.items()
    ],
    Attack(38, "session of its own", _f("os.setsid()\nreturn 1", "import os"), (FORBIDDEN,)),
    Attack(
        39,
        "kill the parent",
        _f(
            "import time\nfor _ in range(3):\n    for p in (os.getppid(), 1, 2, @PID@):\n        if p > 0:\n            try: os.kill(p, 9)\n            except OSError: pass\ntime.sleep(0.05)\nreturn 1",
            "import os",
        ),
        (OK, KILLED),
    ),
    Attack(
        39,
        "stop the parent",
        _f(
            "for s in (19, 20, 2, 15, 1):\n    for p in (os.getppid(), 1):\n        try: os.kill(p, s)\n        except OSError: pass\nreturn 1",
            "import os",
        ),
        (OK, KILLED),
    ),
    Attack(
        39,
        "kill its own group",
        _f("import time\nos.killpg(0, 9)\ntime.sleep(0.2)\nreturn 1", "import os"),
        (FORBIDDEN, OK, KILLED),
    ),
    Attack(
        40,
        "ptrace the parent",
        _f(
            "import ctypes\nl = ctypes.CDLL(None, use_errno=True)\nif l.ptrace(16, os.getppid() or 1, 0, 0) == -1: raise PermissionError(1, 'no')\nreturn 1",
            "import os",
        ),
        (FORBIDDEN,),
    ),
    Attack(40, "read the parent's memory", _f("open('/proc/%d/mem' % @PID@, 'rb')\nreturn 1"), (FORBIDDEN, EXCEPTION)),
    Attack(
        40,
        "read the parent's environment",
        _f("return open('/proc/%d/environ' % @PID@, 'rb').read().decode('latin-1')"),
        (FORBIDDEN, EXCEPTION),
    ),
    Attack(
        40,
        "process_vm_readv",
        _f(
            "import ctypes\nl = ctypes.CDLL(None)\nn = 310 if os.uname().machine == 'x86_64' else 270\nif l.syscall(n, @PID@, 0, 0, 0, 0, 0) == -1: raise PermissionError(1, 'no')\nreturn 1",
            "import os",
        ),
        (FORBIDDEN,),
    ),
    Attack(42, "exec a shell", _f("os.execv('/bin/sh', ['sh', '-c', 'exit 0'])", "import os"), (FORBIDDEN, EXCEPTION)),
    Attack(
        42,
        "exec the interpreter",
        _f("import sys\nos.execv(sys.executable, [sys.executable, '-c', ''])", "import os"),
        (FORBIDDEN, EXCEPTION),
    ),
    Attack(42, "posix_spawn", _f("os.posix_spawn('/bin/true', ['true'], {})", "import os"), (FORBIDDEN, EXCEPTION)),
    Attack(
        43,
        "children ignored",
        _f(
            "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nif os.fork() == 0: os._exit(0)\nreturn 1",
            "import os",
        ),
        (FORBIDDEN,),
    ),
    Attack(45, "read a secret at home", _f("return open('@CANARY@/secret').read()"), (FORBIDDEN, EXCEPTION)),
    Attack(
        45,
        "read a secret by a link",
        _f("os.symlink('@CANARY@/secret', 'x')\nreturn open('x').read()", "import os"),
        (FORBIDDEN, EXCEPTION),
    ),
    Attack(45, "read the password file", _f("return open('/etc/shadow').read()"), (FORBIDDEN, EXCEPTION)),
    Attack(
        45,
        "list the home folder",
        _f("return os.listdir(os.path.expanduser('~@USER@')) + os.listdir('/home')", "import os"),
        (FORBIDDEN, EXCEPTION),
    ),
    Attack(
        46,
        "secrets in the environment",
        _f(
            "import ctypes\nreturn 1 / (not [k for k in os.environ if 'TOKEN' in k or 'KEY' in k or 'AZR' in k])",
            "import os",
        ),
        (OK,),
    ),
    Attack(
        46,
        "secrets in the C environment",
        _f(
            "import ctypes\ng = ctypes.CDLL(None).getenv\ng.restype = ctypes.c_char_p\nreturn 1 / (g(b'HF_TOKEN') is None)"
        ),
        (OK,),
    ),
    Attack(
        47, "write beside the trainer", _f("open('@CANARY@/pwn', 'w').write('x')\nreturn 1"), (FORBIDDEN, EXCEPTION)
    ),
    Attack(
        47,
        "write everywhere",
        _f(
            "import sys, site\nn = 0\nfor d in ['/', '/tmp', '/var/tmp', '/dev', '/dev/shm', '/etc', '/usr/lib', sys.prefix, os.path.dirname(os.__file__), '/proc', '/sys'] + sys.path:\n    try:\n        with open(d + '/pwn.pth', 'w') as h: h.write('x')\n        n += 1\n    except OSError: pass\nreturn 1 / (n == 0)",
            "import os",
        ),
        (OK,),
    ),
    Attack(
        48,
        "fill the disk",
        _f(
            "n = 0\ntry:\n    for i in range(100):\n        with open('big%d' % i, 'wb') as h:\n            for _ in range(64): h.write(b'x' * (1 << 20)); n += 1\nexcept OSError: pass\nreturn n <= 80"
        ),
        (OK, MEMORY),
        wall=10,
        cpu=10,
    ),
    Attack(
        48,
        "many files",
        _f(
            "n = 0\ntry:\n    for i in range(30000): open('f%d' % i, 'w').close(); n += 1\nexcept OSError: pass\nreturn n < 30000"
        ),
        (OK, TIMEOUT),
        wall=8,
        cpu=8,
    ),
    Attack(
        48,
        "deep folders",
        _f("for i in range(2000):\n    os.mkdir('d'); os.chdir('d')\nos.chmod('.', 0)\nreturn 1", "import os"),
        (OK, EXCEPTION, FORBIDDEN),
    ),
    Attack(
        48,
        "folder nobody may enter",
        _f("os.mkdir('d'); open('d/x', 'w').close(); os.chmod('d', 0); os.chmod('.', 0)\nreturn 1", "import os"),
        (OK, FORBIDDEN),
    ),
    Attack(
        49,
        "hard link out of the box",
        _f("os.link('@CANARY@/secret', 'x')\nreturn open('x').read()", "import os"),
        (FORBIDDEN, EXCEPTION),
    ),
    Attack(49, "link to a folder outside", _f("os.symlink('@CANARY@', 'x')\nreturn 1", "import os"), (OK,)),
    *[
        Attack(50, f"connect by {name}", _f(f"import socket\n{body}\nreturn 1"), (FORBIDDEN, EXCEPTION))
        for name, body in {
            "TCP": "socket.create_connection(('127.0.0.1', @PORT@), 1)",
            "TCP over IPv6": "socket.create_connection(('::1', @PORT6@), 1)",
            "UDP": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', @UDP@))",
            "DNS": "socket.getaddrinfo('example.com', 80)",
            "unix socket": "s = socket.socket(socket.AF_UNIX)\ns.connect('@CANARY@/socket')",
            "abstract socket": "s = socket.socket(socket.AF_UNIX)\ns.connect('\\0@ABSTRACT@')",
            "raw system call": (
                "import ctypes, os\nl = ctypes.CDLL(None)\nn = 41 if os.uname().machine == 'x86_64' else 198\n"
                "if l.syscall(n, 2, 1, 0) == -1: raise PermissionError(1, 'no')"
            ),
            "netlink": "socket.socket(16, 3, 0)",
            "vsock": "socket.socket(40, 1).connect((2, 22))",
        }.items()
    ],
    Attack(
        51,
        "listen",
        _f("import socket\ns = socket.socket()\ns.bind(('127.0.0.1', 0))\ns.listen()\ns.accept()"),
        (FORBIDDEN, EXCEPTION),
    ),
    Attack(
        51,
        "pipes spoiled for the next program",
        _f(
            "import os, fcntl\nfor i in (0, 1, 2, 3):\n    fcntl.fcntl(i, fcntl.F_SETFL, os.O_NONBLOCK | fcntl.fcntl(i, fcntl.F_GETFL))\n    try: fcntl.fcntl(i, 1031, 4096)\n    except OSError: pass\nos.chmod('.', 0)\nos.umask(0o777)\nreturn 1"
        ),
        (OK,),
    ),
    Attack(
        52,
        "shared memory",
        _f("from multiprocessing import shared_memory\nshared_memory.SharedMemory('azr_pwn', True, 1000)\nreturn 1"),
        (FORBIDDEN, EXCEPTION),
    ),
    Attack(
        52,
        "System V shared memory",
        _f(
            "import ctypes\nif ctypes.CDLL(None).shmget(4242, 4096, 0o1666) == -1: raise PermissionError(1, 'no')\nreturn 1"
        ),
        (FORBIDDEN,),
    ),
    Attack(
        53,
        "module planted in the working folder",
        _f("open('json5.py', 'w').write('x = 1')\nimport json5\nreturn 1"),
        (EXCEPTION,),
        detail="ModuleNotFoundError",
    ),
    Attack(
        55,
        "new namespaces",
        _f("import ctypes\nif ctypes.CDLL(None).unshare(0x10000000) == -1: raise PermissionError(1, 'no')\nreturn 1"),
        (FORBIDDEN,),
    ),
    Attack(
        55,
        "mount",
        _f(
            "import ctypes\nif ctypes.CDLL(None).mount(b'x', b'/box', b'tmpfs', 0, 0) == -1: raise PermissionError(1, 'no')\nreturn 1"
        ),
        (FORBIDDEN,),
    ),
    Attack(55, "become root", _f("os.setuid(0)\nos.setresuid(0, 0, 0)\nreturn 1", "import os"), (FORBIDDEN,)),
    Attack(
        55,
        "io_uring",
        _f(
            "import ctypes\nif ctypes.CDLL(None).syscall(425, 8, b'\\0' * 120) == -1: raise PermissionError(1, 'no')\nreturn 1"
        ),
        (FORBIDDEN,),
    ),
    *[
        Attack(
            59,
            f"{name}",
            _f(
                f"l = ctypes.CDLL(None, use_errno=True)\nx86 = os.uname().machine == 'x86_64'\nif l.syscall({x86} if x86 else {arm}, {rest}) == -1 and ctypes.get_errno() == 1: raise PermissionError(1, 'no')\nreturn 1",
                "import ctypes, os",
            ),
            (FORBIDDEN,),
        )
        for name, x86, arm, rest in (
            ("flush all disks", 162, 81, "0"),
            ("System V semaphores with a deadline", 220, 192, "0, 0, 0, 0"),
            ("mount tree with attributes", 467, 467, "-100, b'/', 0, 0, 0"),
            ("list mounts", 458, 458, "0, 0, 0, 0"),
            ("memory of the dying", 448, 448, "0, 0"),
            ("flags of a file", 469, 469, "-100, b'.', bytes(24), 24, 0"),
            ("signal of a descriptor", 72, 25, "1, 10, 15"),
            ("owner of a descriptor", 72, 25, "1, 8, 1"),
            ("owner of a descriptor, extended", 72, 25, "1, 15, bytes(8)"),
            ("signal on every write", 72, 25, "1, 4, 0o20001"),
            ("flags of the box", 16, 29, "0, 0x40086602, bytes(8)"),
        )
    ],
    Attack(
        60,
        "a thousand threads",
        _f(
            "threading.stack_size(32768)\nfor _ in range(1000): threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\nreturn 1",
            "import threading, time",
        ),
        (EXCEPTION, MEMORY, FORBIDDEN),
    ),
    Attack(58, "null pointer", _f("import ctypes\nctypes.string_at(0)"), (KILLED,), detail="SIGSEGV"),
    Attack(58, "abort", _f("os.abort()", "import os"), (KILLED,), detail="SIGABRT"),
    Attack(58, "kill itself", _f("os.kill(os.getpid(), 9)", "import os"), (KILLED,), detail="SIGKILL"),
    Attack(
        58,
        "illegal code",
        _f("import types\ng = (lambda: 1)\ng.__code__ = g.__code__.replace(co_code=bytes([255, 255] * 8))\nreturn g()"),
        (KILLED, EXCEPTION, OK, TIMEOUT, FORBIDDEN, BAD, EXITED, MEMORY),
    ),
]
