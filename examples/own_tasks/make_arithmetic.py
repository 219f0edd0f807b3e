"""Writes arithmetic.jsonl: 300 sums, differences and remainders, in the form of the prompts that nano has seen.

python examples/own_tasks/make_arithmetic.py > examples/own_tasks/arithmetic.jsonl
"""

import json

FORMS = {"a + b": lambda a, b: a + b, "a - b": lambda a, b: a - b, "a % (b + 1)": lambda a, b: a % (b + 1)}
PROMPT = """\
deduction
```python
def f(a, b):
    return {form}
```
```input
{a}, {b}
```
```output
"""

if __name__ == "__main__":
    for form, value in FORMS.items():
        for a in range(10):
            for b in range(10):
                print(json.dumps({"prompt": PROMPT.format(form=form, a=a, b=b), "answer": str(value(a, b))}))
