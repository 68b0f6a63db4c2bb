"""Configs on the command line: overrides, errors, output, and the files of a run."""

import copy
import json
import math
import platform
import sys
import time

import jax
import numpy as np
import pytest

from jaxcnn.data import DataError
from jaxcnn.train import FIT, ConfigError, Run, _output, command, override, require, resolve
from jaxcnn.train._recipe import merge

CONFIG = {
    "seed": 0,
    "train": {"epochs": 5, "batch_size": 64, "shuffle": True},
    "optimizer": {"learning_rate": 0.1, "schedule": {"kind": "cosine"}},
    "data": {"name": "mnist", "root": ""},
    "widths": [16, 32],
}
KEYS = [
    "seed",
    "train.epochs",
    "train.batch_size",
    "train.shuffle",
    "optimizer.learning_rate",
    "optimizer.schedule.kind",
    "data.name",
    "data.root",
    "widths",
]


def value_at(config, path):
    for key in path.split("."):
        config = config[key]
    return config


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("seed=7", 7),
        ("seed=-1", -1),
        ("train.epochs=1_000", 1000),
        ("train.shuffle=false", False),
        ("train.shuffle=False", False),
        ("train.shuffle=true", True),
        ("optimizer.learning_rate=1e-3", 1e-3),
        ("optimizer.learning_rate=1", 1.0),
        ("optimizer.learning_rate=-2", -2.0),
        ("optimizer.schedule.kind=constant", "constant"),
        ("data.name=10", "10"),
        ("data.name=True", "True"),
        ("data.root=/a=b/c==", "/a=b/c=="),
        ("data.root=", ""),
        ("data.root='quoted'", "'quoted'"),
        ("widths=[1, 2, 3]", [1, 2, 3]),
        ("widths=[]", []),
    ],
)
def test_override(assignment, value):
    path = assignment.partition("=")[0]
    before = copy.deepcopy(CONFIG)
    result = override(CONFIG, [assignment])
    assert value_at(result, path) == value
    assert type(value_at(result, path)) is type(value)
    assert before == CONFIG
    others = [key for key in KEYS if key != path]
    assert [value_at(result, key) for key in others] == [value_at(before, key) for key in others]


def test_override_shares_nothing_with_the_original():
    result = override(CONFIG, [])
    assert result == CONFIG
    result["widths"].append(64)
    result["optimizer"]["schedule"]["kind"] = "linear"
    assert CONFIG["widths"] == [16, 32]
    assert CONFIG["optimizer"]["schedule"]["kind"] == "cosine"


def test_the_last_override_wins():
    result = override(CONFIG, ["seed=1", "train.epochs=2", "seed=3"])
    assert (result["seed"], result["train"]["epochs"]) == (3, 2)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.epoch=3", r"unknown key 'train\.epoch'; .*did you mean 'train\.epochs'"),
        ("epochs=3", r"unknown key 'epochs'; .*did you mean 'train\.epochs'"),
        ("--train.epochs=3", r"unknown key '--train\.epochs'; .*did you mean 'train\.epochs'"),
        ("Seed=3", r"unknown key 'Seed'; .*did you mean 'seed'"),
        ("zzz=3", r"unknown key 'zzz'; expected one of: seed, train\.epochs, .*widths$"),
        ("train.epochs.x=3", r"unknown key 'train\.epochs\.x'"),
        ("train=3", r"unknown key 'train'.*train\.epochs"),
        ("optimizer.schedule={}", r"unknown key 'optimizer\.schedule'.*optimizer\.schedule\.kind"),
        ("=3", r"unknown key ''"),
        ("train.epochs", r"expected key\.path=value, got 'train\.epochs'"),
        ("--epochs", r"expected key\.path=value, got '--epochs'; did you mean train\.epochs=\.\.\?$"),
        ("--zzz", r"expected key\.path=value, got '--zzz'$"),
        ("", r"expected key\.path=value, got ''"),
        ("train.epochs=2.5", r"train\.epochs must be of type int, such as 5, got '2\.5'"),
        ("train.epochs=2.0", r"train\.epochs must be of type int.*got '2\.0'"),
        ("train.epochs=True", r"train\.epochs must be of type int.*got 'True'"),
        ("train.epochs=many", r"train\.epochs must be of type int.*got 'many'"),
        ("train.epochs=", r"train\.epochs must be of type int.*got ''"),
        ("train.epochs=__import__('os')", r"train\.epochs must be of type int"),
        ("train.epochs={[]: 1}", r"train\.epochs must be of type int"),
        ("train.shuffle=1", r"train\.shuffle must be of type bool, such as True, got '1'"),
        ("train.shuffle=yes", r"train\.shuffle must be of type bool.*got 'yes'"),
        ("optimizer.learning_rate=fast", r"optimizer\.learning_rate must be of type float, such as 0\.1, got 'fast'"),
        ("optimizer.learning_rate=True", r"optimizer\.learning_rate must be of type float.*got 'True'"),
        pytest.param("optimizer.learning_rate=1" + "0" * 400, r"optimizer\.learning_rate must be", id="huge int"),
        ("widths=true", r"widths must be of type list, such as \[16, 32\], got 'true'"),
        ("widths=(1, 2)", r"widths must be of type list.*got '\(1, 2\)'"),
    ],
)
def test_refused(assignment, message):
    with pytest.raises(ConfigError, match=message):
        override(CONFIG, [assignment])


SGD = {"train": {"optimizer": {"name": "sgd", "learning_rate": 0.1}}, "optimizer": {"learning_rate": 0.1}}


@pytest.mark.parametrize(
    ("assignments", "expected"),
    [
        (["momentum=0.9", "nesterov=True"], {"name": "sgd", "momentum": 0.9, "nesterov": True}),
        (["b1=0.8", "name=adam"], {"name": "adam", "b1": 0.8}),
        (["momentum=0", "accumulator_dtype=bfloat16", "momentum=1e-1"], {"momentum": 0.1, "name": "sgd"}),
    ],
)
def test_arguments_of_an_optimizer(assignments, expected):
    config = override(SGD, [f"train.optimizer.{assignment}" for assignment in assignments])
    assert config["optimizer"] == SGD["optimizer"]
    optimizer = resolve(config["train"])["optimizer"]
    assert expected.items() <= optimizer.items()


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.optimizer.momentun=0.9", r"unknown key 'train\.optimizer\.momentun'"),
        ("train.optimizer.lr=0.9", r"unknown key .*did you mean 'train\.optimizer\.learning_rate'"),
        ("train.optimizer.weight_decay=0.9", r"unknown key 'train\.optimizer\.weight_decay'"),
        ("optimizer.momentum=0.9", r"unknown key 'optimizer\.momentum'"),  # without a name, it is not one of optax
        ("train.optimizer.b1=0.9", r"optimizer\.b1: sgd has no such argument; expected one of: learning_rate, mom"),
        ("train.optimizer.momentum=fast", r"optimizer\.momentum must be a finite number, got 'fast'"),
        ("train.optimizer.momentum=nan", r"optimizer\.momentum must be a finite number, got 'nan'"),
        ("train.optimizer.momentum=[1]", r"optimizer\.momentum must be a finite number, got \[1\]"),
        pytest.param("train.optimizer.momentum=1" + "0" * 400, r"optimizer\.momentum must be a finite", id="huge int"),
    ],
)
def test_refused_arguments_of_an_optimizer(assignment, message):
    with pytest.raises(ConfigError, match=message):
        resolve(override(SGD, [assignment])["train"])


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ({"name": "muon", "ns_steps": 2.5}, "ns_steps must be an integer, got 2.5"),
        ({"name": "muon", "ns_steps": True}, "ns_steps must be an integer, got True"),
        ({"name": "muon", "ns_coeffs": 3.0}, "ns_coeffs: muon has no such argument"),
        ({"name": "sgd", "momentum": 0.9, "nesterov": 2}, "nesterov must be a bool, got 2"),
        ({"name": "adam", "eps": True}, "eps must be a finite number, got True"),
        (
            {"name": "adagrad", "initial_accumulator_value": -1},
            "initial_accumulator_value must be at least 0 and finite",
        ),
        ({"name": "lars", "trust_coefficient": -1.0}, "trust_coefficient must be at least 0 and finite, got -1.0"),
        ({"name": "rmsprop", "initial_scale": -1.0}, "initial_scale must be at least 0 and finite, got -1.0"),
        ({"name": "radam", "threshold": -1}, "threshold must be at least 0 and finite, got -1"),
    ],
    ids=str,
)
def test_types_and_limits_of_the_arguments_of_optimizers(optimizer, message):
    with pytest.raises(ConfigError, match=rf"optimizer\.{message}"):
        resolve({"optimizer": optimizer})


def test_a_number_is_a_list_of_one_number():
    assert override(CONFIG, ["widths=3"])["widths"] == [3]
    assert resolve({"label_fill": 255})["label_fill"] == resolve({"label_fill": [255]})["label_fill"] == [255]
    with pytest.raises(ConfigError, match=r"label_fill must be of type list, such as .*got True"):
        resolve({"label_fill": True})


@pytest.mark.parametrize("epochs", [1, 9])
def test_require_within(epochs):
    require(CONFIG | {"train": {"epochs": epochs}}, {"train.epochs": (1, 10)})


@pytest.mark.parametrize("epochs", [0, 10, -3, float("nan")])
def test_require_outside(epochs):
    message = rf"train\.epochs must be at least 1 and below 10, got {epochs}"
    with pytest.raises(ConfigError, match=message):
        require({"train": {"epochs": epochs}}, {"train.epochs": (1, 10)})


def test_require_number():
    limits = {"train.epochs": (1, math.inf)}
    for config, message in (
        ({}, "train.epochs is missing"),
        ({"train": {"epochs": "3"}}, "train.epochs must be a number, got '3'"),
        ({"train": {"epochs": True}}, "train.epochs must be a number, got True"),
        ({"train": {"epochs": 0}}, "train.epochs must be at least 1 and finite, got 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            require(config, limits)
    require({"train": {"epochs": np.float32(2)}}, limits)


def run_command(monkeypatch, main, *arguments):
    monkeypatch.setattr(sys, "argv", ["experiment", *arguments])
    command(main, CONFIG, "\nWhat it claims.\n")


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_every_key(monkeypatch, capsys, flag):
    run_command(monkeypatch, lambda config: pytest.fail("help must not run anything"), "seed=1", flag)
    said = capsys.readouterr().out
    assert said.startswith("What it claims.\n")
    listed = [line.strip() for line in said.splitlines() if "=" in line and line.startswith("  ")]
    assert listed == [f"{key}={value_at(CONFIG, key)}" for key in KEYS]


def test_command_runs_main_on_the_overridden_config(monkeypatch):
    seen = []
    run_command(monkeypatch, seen.append, "seed=3", "data.name=other")
    assert seen == [override(CONFIG, ["seed=3", "data.name=other"])]


@pytest.mark.parametrize("arguments", [["train.epoch=3"], ["seed=x"], ["seed"]])
def test_bad_setting_is_one_line_and_status_2(monkeypatch, capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        run_command(monkeypatch, lambda config: pytest.fail("must not run"), *arguments)
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("error", [ConfigError("seed must be odd"), DataError("mnist: not found")])
def test_an_error_from_main_is_one_line_and_status_2(monkeypatch, capsys, error):
    def main(config):
        raise error

    with pytest.raises(SystemExit) as ended:
        run_command(monkeypatch, main)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {error}\n"


def test_other_errors_keep_their_traceback(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        run_command(monkeypatch, lambda config: 1 / 0)


def strict(text):
    """Parse standard JSON, without NaN and Infinity."""

    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_run_folder(tmp_path, capsys):
    run = Run("lenet", CONFIG, root=str(tmp_path / "all" / "runs"))
    assert run.folder.parent == tmp_path / "all" / "runs"
    assert run.folder.name.startswith("lenet-")
    about = strict((run.folder / "config.json").read_text())
    assert about["experiment"] == "lenet"
    assert about["config"] == CONFIG
    assert about["device"] == jax.devices()[0].device_kind
    assert set(about["versions"]) == {"python", "jax", "jaxlib", "optax", "numpy"}
    assert about["versions"]["python"] == platform.python_version()
    assert about["versions"]["jax"] == jax.__version__

    records = [{"epoch": 1, "test": {"loss": 0.5}}, {"epoch": 2, "test": {"loss": 0.25}}]
    for record in records:
        run.log(f"epoch {record['epoch']}", **record)
    assert capsys.readouterr().out == "epoch 1\nepoch 2\n"
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    assert [strict(line) for line in lines] == records
    assert {path.name for path in run.folder.iterdir()} == {"config.json", "metrics.jsonl", "metrics.csv"}
    assert (run.folder / "metrics.csv").read_text().split() == ["epoch,test.loss", "1,0.5", "2,0.25"]


def test_a_resumed_run_drops_later_records(tmp_path):
    run = Run("lenet", CONFIG, folder=tmp_path / "run")
    for step in (5, 10, 15):
        run.log(f"at {step}", step=step, loss=1 / step)
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "lo')  # it was killed while it wrote this
    again = Run("lenet", CONFIG | {"seed": 9}, folder=tmp_path / "run")
    again.forget_after(10)
    assert again.records == [{"step": 5, "loss": 0.2}, {"step": 10, "loss": 0.1}]
    again.log("at 12", step=12, loss=0.0)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [strict(line)["step"] for line in lines] == [5, 10, 12]
    assert (tmp_path / "run" / "metrics.csv").read_text().split() == ["step,loss", "5,0.2", "10,0.1", "12,0.0"]
    assert strict((tmp_path / "run" / "config.json").read_text())["config"] == CONFIG


def test_busy_prints_progress(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("jaxcnn.train._run._TICK", 0.05)
    monkeypatch.setitem(_output._WAITS, "other", (0.05,))
    run = Run("lenet", CONFIG, root=str(tmp_path))
    with run.busy("compiling"):
        time.sleep(0.5)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 3
    assert set(lines) <= {"compiling ... 0 s", "compiling ... 1 s"}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_diverged_run_still_writes_json(tmp_path, value):
    run = Run("lenet", CONFIG, root=str(tmp_path))
    run.log("epoch 1", epoch=1, train={"loss": value})
    assert strict((run.folder / "metrics.jsonl").read_text())["epoch"] == 1


def test_runs_in_the_same_second_overwrite_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda *args: "20000101-000000")
    runs = [Run("lenet", CONFIG | {"seed": seed}, root=str(tmp_path)) for seed in range(3)]
    assert len({run.folder for run in runs}) == 3
    for seed, run in enumerate(runs):
        run.log("done", seed=seed)
    for seed, run in enumerate(runs):
        assert json.loads((run.folder / "config.json").read_text())["config"]["seed"] == seed
        assert json.loads((run.folder / "metrics.jsonl").read_text()) == {"seed": seed}


def test_progress_is_sparse_without_a_terminal(tmp_path, monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    run = Run("lenet", CONFIG, root=str(tmp_path))
    for now[0] in range(101, 1500):
        run.progress(f"at {now[0]}")
    assert capsys.readouterr().out.split("\n") == [f"at {100 + s}" for s in (10, 40, 100, 220, 520, 820, 1120)] + [""]
    run.say("epoch 1")
    for now[0] in range(1500, 1530):
        run.progress(f"at {now[0]}")
    assert capsys.readouterr().out == "epoch 1\nat 1509\n"
    assert not (run.folder / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("config", "nearest"),
    [
        ({"learning_rate": 0.1}, "optimizer.learning_rate"),
        ({"lr": 0.1}, "optimizer.learning_rate"),
        ({"colour": 0.1}, None),
        ({"evaluate": {"batchsize": 1}}, "evaluate.batch_size"),
        ({"keep": 1}, "checkpoint.keep"),
        ({"checkpoint": {"kep": 1}}, "checkpoint.keep"),
        ({"warmup": 0.1}, "schedule.warmup"),
        ({"epoch": 1}, "epochs"),
    ],
)
def test_unknown_settings_of_fit_name_the_nearest_path(config, nearest):
    with pytest.raises(ConfigError, match="unknown key") as raised:
        merge(FIT, config)
    said = str(raised.value)
    assert said.endswith(f"did you mean '{nearest}'?") if nearest else "did you mean" not in said


def test_numbers_of_numpy_become_those_of_python():
    config = {"optimizer": {"name": "sgd", "learning_rate": np.float32(0.5), "momentum": np.float32(0.25)}}
    resolved = resolve(config | {"epochs": np.int64(3), "augment": [["translate", np.int64(2)]]})
    assert json.loads(json.dumps(resolved)) == resolved
    assert (resolved["optimizer"]["momentum"], resolved["epochs"]) == (0.25, 3)
