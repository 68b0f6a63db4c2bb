"""Write lessons.html: ten interactive lessons in one page that works offline.

    python -m experiments.lessons                   a minute on 2 cores
    python -m experiments.lessons out=folder        writes to this folder instead of a new one in runs/

Open the page in any browser. It contains its style, its script, the weights of a LeNet-5 that is trained first, and the
results of training runs with different regularization. `python -m experiments.concepts` writes it, too.
"""

import json
import pathlib
import string

import jaxcnn
from experiments.lessons._content import EDGE, content
from jaxcnn import train
from jaxcnn.report._page import Html, document, tag, write_page

CONFIG = {
    "lenet": {"seed": 0, "epochs": 8},
    "overfitting": {
        "images": 200,
        "test_images": 500,
        "epochs": 25,
        "l1": [0.0, 0.0005, 0.002, 0.008],
        "l2": [0.0, 0.003, 0.01, 0.03],
        "dropout_rates": [0.0, 0.25, 0.5, 0.75],
    },
    "out": "",
}
FOLDER = pathlib.Path(__file__).parent
# In this order: each file uses what is defined in the ones before.
SCRIPTS = ("tensor", "page", "convolution", "training", "lenet", "networks")


def source(name):
    return (FOLDER / name).read_text(encoding="utf-8")


def page(values):
    """Return the page with these values, which `content` computes."""
    text = string.Template(source("page.html")).substitute(
        images=values["overfitting"]["images"],
        edge=EDGE,
        accuracy=f"{values['accuracy']:.1%}",
        version=jaxcnn.__version__,
    )
    # In a script element, "</" would end it.
    numbers = json.dumps(values, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    return document(
        "Convolutional networks, hands on",
        Html(text),
        tag("script", Html(numbers), type="application/json", id="data"),
        style=source("style.css"),
        script="\n".join(source(f"script/{name}.js") for name in SCRIPTS),
    )


def write(folder, config):
    """Write lessons.html into a folder, and return its path."""
    path = pathlib.Path(folder, "lessons.html")
    write_page(path, page(content(config)))
    return path


def main(config):
    run = train.Run("lessons", config, folder=config["out"])
    with run.busy("training LeNet-5 and small networks"):
        path = write(run.folder, config)
    run.say(f"{path.stat().st_size / 1e6:.2f} MB; see {path}")
    return path


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)
