"""The configuration: one dataclass tree, read from YAML and `--set` words, checked, written back.

settings = load("nano", ["steps=20"])
"""

from azr_mlx.config.checks import cautions, check, is_name
from azr_mlx.config.option import ConfigError, Option, written
from azr_mlx.config.prompt_style import PromptStyle, find_style, load_style, style_names
from azr_mlx.config.reading import dump, find_config, load, nearest, parse, presets
from azr_mlx.config.schema import (
    RESUMABLE,
    AdvantageConfig,
    BatchConfig,
    BufferConfig,
    CheckpointConfig,
    Config,
    EvaluationConfig,
    ExecutorConfig,
    LoraConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    RewardConfig,
    SamplingConfig,
    StopConfig,
    TasksConfig,
    TrackingConfig,
    diff,
    flatten,
    options,
    sections,
    with_values,
)

__all__ = [
    "RESUMABLE",
    "AdvantageConfig",
    "BatchConfig",
    "BufferConfig",
    "CheckpointConfig",
    "Config",
    "ConfigError",
    "EvaluationConfig",
    "ExecutorConfig",
    "LoraConfig",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "Option",
    "PromptStyle",
    "RewardConfig",
    "SamplingConfig",
    "StopConfig",
    "TasksConfig",
    "TrackingConfig",
    "cautions",
    "check",
    "diff",
    "dump",
    "find_config",
    "find_style",
    "flatten",
    "is_name",
    "load",
    "load_style",
    "nearest",
    "options",
    "parse",
    "presets",
    "sections",
    "style_names",
    "with_values",
    "written",
]
