"""Writes make_tests_pass.jsonl: functions to be written so that tests pass, in the form that nano has seen.

python examples/own_tasks/make_tests_pass.py > examples/own_tasks/make_tests_pass.jsonl
"""

import json

PROGRAMS = {
    "add {n}": lambda n: lambda a: a + n,
    "subtract {n}": lambda n: lambda a: a - n,
    "times {n}": lambda n: lambda a: a * n,
    "pair": lambda n: lambda a: [a, a],
}
INPUTS = (2, 5, 3, 8, 6, 4)

if __name__ == "__main__":
    for name, made in PROGRAMS.items():
        for n in range(1, 10):
            f = made(n)
            shown = "".join(f"```input\n{a}\n```\n```output\n{f(a)}\n```\n" for a in INPUTS[:3])
            prompt = f"induction\n{shown}```message\n{name.format(n=n)}\n```\n```python\n"
            print(json.dumps({"prompt": prompt, "tests": [f"assert f({a}) == {f(a)}" for a in INPUTS[3:]]}))
