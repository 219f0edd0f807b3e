"""The configuration: one dataclass tree, read from YAML and `--set` words, checked, written back.

settings = load("nano", ["steps=20"])
"""

from azr_mlx.config.checks import ConfigError, cautions, check, is_name
from azr_mlx.config.option import Option, written
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
    "flatten",
    "is_name",
    "load",
    "nearest",
    "options",
    "parse",
    "presets",
    "sections",
    "with_values",
    "written",
]
