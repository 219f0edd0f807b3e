"""The user's own data and rewards: rows, reward functions, group advantages. Plain Python, on the environment side.

reading        rows of a file, what is wrong with those that are left out, the held-out split
reward_functions   the user's functions, called as TRL calls them
ready          rewards that come with azr_mlx and use the executor
group_advantages   GRPO and its relatives
environment    what a step asks of the rows and what the answers are worth
"""
