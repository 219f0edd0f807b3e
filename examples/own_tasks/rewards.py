"""Reward functions with TRL's signature: TRL's GRPOTrainer and azr_mlx both take this file as it is.

azr train:  reward: examples/own_tasks/rewards.py:right_number
TRL:        GRPOTrainer(model, reward_funcs=[right_number, closed_block], train_dataset=rows, ...)
"""


def right_number(completions, answer, **kwargs):
    """1 when what stands before the closing fence is the row's answer, else 0."""
    return [
        float(reply(one).split("```")[0].strip() == str(gold)) for one, gold in zip(completions, answer, strict=True)
    ]


def closed_block(completions, **kwargs):
    """1 when the reply is one line and a closing fence; None for a reply without any fence, where it has no opinion."""
    return [
        None if "```" not in reply(one) else float(reply(one).strip().endswith("```") and reply(one).count("\n") <= 2)
        for one in completions
    ]


def reply(completion):
    """The text of a completion: it is text, or a list of one message where the row's prompt is a list of messages."""
    return completion if isinstance(completion, str) else completion[0]["content"]
