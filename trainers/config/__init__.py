"""The configuration of a training command: TOML in, checked settings of one stage out.

    config = read_config(SftConfig, Path("configs/npr-4b/sft.toml"))

The defaults are those of the paper (arXiv:2512.07461, and its public scripts).
"""

from nprdsl.trainers.config.reading import ConfigError, read_config
from nprdsl.trainers.config.stages import PapoConfig, SampleConfig, SftConfig, ZeroConfig

__all__ = ["ConfigError", "PapoConfig", "SampleConfig", "SftConfig", "ZeroConfig", "read_config"]
