"""The environment side of self-play: what is asked, how a reply is read, what Python says of it, what that is worth.

Plain Python. Nothing here imports MLX, at any time.
"""
