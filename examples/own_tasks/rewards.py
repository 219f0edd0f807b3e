"""Reward functions with TRL's signature: TRL's GRPOTrainer and azr_mlx both take this file as it is.

azr train:  reward: examples/own_tasks/rewards.py:right_number
TRL:        GRPOTrainer(model, reward_funcs=[right_number, right_sign], train_dataset=rows, ...)
"""


def right_number(completions, answer, **kwargs):
    """1 when what stands before the closing fence is the row's answer, else 0."""
    return [
        float(reply(one).split("```")[0].strip() == str(gold)) for one, gold in zip(completions, answer, strict=True)
    ]


def right_sign(completions, answer, **kwargs):
    """1 when the sign is right, whatever the number; None for a row whose answer is 0, where it has no opinion."""
    signs = [reply(one).startswith("-") for one in completions]
    return [
        None if gold == "0" else float(sign == gold.startswith("-")) for sign, gold in zip(signs, answer, strict=True)
    ]


def reply(completion):
    """The text of a completion: it is text, or a list of one message where the row's prompt is a list of messages."""
    return completion if isinstance(completion, str) else completion[0]["content"]
