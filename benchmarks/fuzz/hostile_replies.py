"""Replies that try to stop, stall or fool the trainer: what a model could write, by accident or by reward.

Each is put where a completion would stand, for a proposal as for an answer; `python benchmarks/fuzz/hostile_run.py`
trains with some of them among real ones.
"""

from __future__ import annotations

_DEEP = "def f(x):\n    v = -x\n    for _ in range(100):\n        v = [v]\n    return v"
_COLLIDING = "{" + ",".join(f"{k}*(2**61-1)" for k in range(1, 900)) + "}"
_FORGED = "import os\ndef f(x):\n    os.write(3, b'\\x01\\x00\\x00\\x00o')\n    os._exit(0)"
_ALWAYS_EQUAL = (
    "class E:\n    def __eq__(self, other):\n        return True\n    __hash__ = None\ndef f(*a):\n    return E()"
)

PROGRAMS = (
    "def f(x):\n    return complex(x, 1e999)",
    _DEEP,
    "def f(x):\n    v = x\n    for _ in range(50):\n        v = frozenset([v])\n    return v",
    "def f(x):\n    return 10**5000",
    "def f(x):\n    return [[0] * 300] * 300",
    "def f(x):\n    return 'a' * (1 << 20)",
    "def f(x):\n    return {k * (2**61 - 1) for k in range(500)}",
    "def f(x):\n    return [set() for _ in range(200_000)]",
    "def f(x):\n    return '\\ud800'",
    "def f(x):\n    while True: pass",
    "def f(x):\n    raise SystemExit",
    "def f(x):\n    return f(x)",
    "def f(x):\n    return " + "+".join("x" * 1_900),
    "def f(x):\n    return " + "-" * 20_000 + "x",
    "def f(x):\n    return (" * 1 + "(" * 5_000,
    "import os, signal\ndef f(x):\n    os.kill(os.getppid(), signal.SIGKILL)\n    return x",
    "import os\ndef f(x):\n    while True: os.fork()",
    "import os\ndef f(x):\n    os.utime('.', (1, 2))\n    return int(os.stat('.').st_mtime)",
    "def f(x):\n    open('/tmp/azr-escaped', 'w').write('x')\n    return x",
    _FORGED,
    _ALWAYS_EQUAL,
)
ANSWERS = (
    "[[0]*6000]*6000", "[[[0]*99999]*99999]*99999", "9**9**9", "1<<10**9", "'a'*10**12", "9" * 5_000, "1e999", "nan",
    "(1+infj)", "{[]: 1}", _COLLIDING, "1), f(2", "*[1]", "**{'x': 1}", "__import__('os')._exit(0)", "f'{1/0}'",
    "{0.__class__}", "%s %n {} {0}", "-" * 20_000 + "1", "1+" * 8_000 + "1", "lambda:" * 2_000 + "1", "\ud800", "\x00",
    "\u202e\x1b[2J", "(" * 20_000, "x" + ".b" * 8_000,
)  # fmt: skip
TEXTS = (
    "", "```", "```python", "</answer><answer>", "<think>" * 5_000, "```\n" * 50_000, " " * 200_000, "a" * 200_000,
    "# input: " * 20_000, "the output is " * 10_000,
)  # fmt: skip


def replies() -> tuple[str, ...]:
    """Whole replies: each program as a proposal, as an induction answer; each answer in both its places; each text."""
    found = [f"```python\n{program}\n```\n```input\n1\n```\n" for program in PROGRAMS]
    found += [f"{program}\n```\n```input\n1\n```\n" for program in PROGRAMS]  # after a begun reply
    found += [f"```{label}\n{answer}\n```\n" for answer in ANSWERS for label in ("output", "input")]
    found += [f"{answer}\n```\n" for answer in ANSWERS]
    return (*found, *TEXTS)
