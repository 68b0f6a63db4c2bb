"""The settings of a run, those that differ from the defaults first."""

import json
from typing import Any

from jaxcnn.report._page import Html, joined, table, tag
from jaxcnn.train import FIT
from jaxcnn.train._config import Config, flat_entries


def settings(about: dict[str, Any]) -> Html:
    config = dict(flat_entries(about["config"]))
    defaults = _defaults(about["config"])
    own = {path: value for path, value in config.items() if path not in defaults or value != defaults[path]}
    parts = []
    if not config:
        parts.append(tag("p", "The run has no settings on record."))
    elif defaults:
        changed = ((path, _setting(value), _setting(defaults.get(path, ""))) for path, value in own.items())
        caption = "Settings that are not the defaults of train.fit"
        parts.append(table(caption, ["setting", "value", "default"], changed, class_="words"))
        rest = ((path, _setting(value)) for path, value in config.items() if path not in own)
        as_they_are = table("Settings that are the defaults", ["setting", "value"], rest, class_="words")
        parts.append(tag("details", tag("summary", "All others"), as_they_are))
    else:
        rows = ((path, _setting(value)) for path, value in config.items())
        parts.append(table("All settings", ["setting", "value"], rows, class_="words"))
    made = {"device": about["device"]} | about["versions"]
    return joined([*parts, table("What it ran on", ["part", "version"], made.items(), class_="words")])


def _defaults(config: Config) -> Config:
    """The defaults of all settings of `train.fit` that are in the config, alone or with those of an experiment."""
    places = {"": config} | {f"{name}.": part for name, part in config.items() if isinstance(part, dict)}
    fits = [prefix for prefix, part in places.items() if FIT.keys() <= part.keys()]
    return {prefix + path: value for prefix in fits for path, value in flat_entries(FIT)}


def _setting(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
