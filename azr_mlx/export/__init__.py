"""A run's adapter for mlx-lm, PEFT and transformers, checked against the policy that it was written from."""

from azr_mlx.export.card import base_model
from azr_mlx.export.check import Check
from azr_mlx.export.formats import DTYPES, FORMATS, ExportedFolder
from azr_mlx.export.fused import Tensor, fused_tensors, write_fused, write_safetensors
from azr_mlx.export.hub import check_hub, push, repositories
from azr_mlx.export.peft import adapted, peft_config
from azr_mlx.export.pipeline import export_checkpoint
from azr_mlx.export.source import AdapterSource, default_target, find_source, running_policy
from azr_mlx.export.tokenizer import write_tokenizer
from azr_mlx.export.verify import check_folders, check_rows, check_states

__all__ = [
    "DTYPES",
    "FORMATS",
    "AdapterSource",
    "Check",
    "ExportedFolder",
    "Tensor",
    "adapted",
    "base_model",
    "check_folders",
    "check_hub",
    "check_rows",
    "check_states",
    "default_target",
    "export_checkpoint",
    "find_source",
    "fused_tensors",
    "peft_config",
    "push",
    "repositories",
    "running_policy",
    "write_fused",
    "write_safetensors",
    "write_tokenizer",
]
