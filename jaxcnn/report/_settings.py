"""The report's section on settings: first those that differ from the defaults."""

import json
from typing import Any

from jaxcnn.report._page import Html, joined, table, tag
from jaxcnn.train import FIT
from jaxcnn.train._config import Config, flat_entries


def settings(about: dict[str, Any]) -> Html:
    config = dict(flat_entries(about["config"]))
    defaults = _defaults(about["config"])
    changed = {path: value for path, value in config.items() if path not in defaults or value != defaults[path]}
    parts = []
    if not config:
        parts.append(tag("p", "This run recorded no settings."))
    elif defaults:
        changed_rows = (
            (path, setting_text(value), setting_text(defaults.get(path, ""))) for path, value in changed.items()
        )
        caption = "Settings that differ from the defaults of train.fit"
        parts.append(table(caption, ["setting", "value", "default"], changed_rows, class_="words"))
        rest = ((path, setting_text(value)) for path, value in config.items() if path not in changed)
        default_table = table("Settings with default values", ["setting", "value"], rest, class_="words")
        parts.append(tag("details", tag("summary", "Show settings with default values"), default_table))
    else:
        rows = ((path, setting_text(value)) for path, value in config.items())
        parts.append(table("All settings", ["setting", "value"], rows, class_="words"))
    environment = {"device": about["device"]} | about["versions"]
    return joined([*parts, table("Environment", ["component", "version"], environment.items(), class_="words")])


def _defaults(config: Config) -> Config:
    """The defaults of the `train.fit` settings in a config, by path: at the top level or one level below."""
    levels = {"": config} | {f"{name}.": part for name, part in config.items() if isinstance(part, dict)}
    prefixes = [prefix for prefix, part in levels.items() if FIT.keys() <= part.keys()]
    return {prefix + path: value for prefix in prefixes for path, value in flat_entries(FIT)}


def setting_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
