"""One frozen `Settings`; nobody else reads the environment."""

from app.config.settings import LOOPBACK, ROOT, Settings, get_settings
from app.config.values import ADDRESS

__all__ = ["ADDRESS", "LOOPBACK", "ROOT", "Settings", "get_settings"]
