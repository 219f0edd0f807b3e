"""The model side: loading, sampling, the loss and its gradient. Nothing here sees a program or a verdict.

No name is handed on from here, because `azr_mlx.model.device` has to be imported before MLX is.
"""
