"""From edges to parts to the digit: layer by layer, maps get smaller and more, and classes come apart.

    python -m experiments.concepts.feature_maps

The maps of a trained LeNet-5 for one digit. The first layer answers to edges, each number from 5 x 5 pixels. The second
sees 14 x 14 or more, half of the digit, and answers in few places: to a part such as a corner or the end of a stroke.
How far a layer is from pixels to classes: take the mean of its activations for each class, and put every new digit to
the nearest mean. The deeper the layer, the more digits are put right.
"""

import numpy as np

from experiments.concepts._digits import digits
from experiments.concepts._figure import Shown, command, drawing, image, mosaic
from experiments.concepts.learned_filters import CONFIG, lenet
from jaxcnn import explain

LAYERS = ("relu1", "pool1", "relu2", "pool2", "relu4")
SHOWN = 8  # maps, at most, of a layer


def nearest_mean(seen, labels, new):
    """The class whose mean over `seen` (N, features) is nearest to each of `new`."""
    means = np.stack([seen[labels == label].mean(0) for label in range(10)])
    return ((new[:, None] - means) ** 2).sum(-1).argmin(1)


def measure(seed, epochs):
    """For each layer: the maps of one digit, their shape, what a number in them sees, and the share put right."""
    model, params, state, _ = lenet(seed, epochs)
    (images, labels), (unseen, answers) = digits("train"), digits("test")
    images, labels = images[:2000], labels[:2000]
    pattern = "|".join(LAYERS)
    seen = {"pixels": images} | explain.feature_maps(model, params, state, images, pattern)
    new = {"pixels": unseen} | explain.feature_maps(model, params, state, unseen, pattern)
    fields = {layer.path: layer.fields[0].size for layer in explain.receptive_field(model, images[:1]).layers}
    one = np.flatnonzero(answers == 4)[0]
    found = {}
    for name, maps in new.items():
        flat = [np.reshape(activations, (len(activations), -1)) for activations in (seen[name], maps)]
        found[name] = {
            "maps": np.asarray(maps[one]),
            "sees": fields.get(name, 1),
            "right": float((nearest_mean(flat[0], labels, flat[1]) == answers).mean()),
        }
    return found


@drawing
def draw(found):
    columns = range(SHOWN)
    layout = [[f"{name} {i if result['maps'].ndim == 3 else 0}" for i in columns] for name, result in found.items()]
    figure, axes = mosaic(layout, 6.4, 5)
    for name, result in found.items():
        maps, strip = result["maps"], result["maps"].ndim == 1
        tiles = maps[None, None] if strip else np.moveaxis(maps, -1, 0)
        largest = np.argsort(-tiles.sum((1, 2)), kind="stable")[:SHOWN]
        for i in columns[: 1 if strip else None]:
            ax = axes[f"{name} {i}"]
            if i < len(largest):
                image(ax, tiles[largest[i]], limits=(0, maps.max()))
            else:
                ax.set_axis_off()
        if strip:
            axes[f"{name} 0"].set_aspect(2)
        label = f"{name}\n{' x '.join(map(str, maps.shape))}\n{result['right']:.0%} right"
        axes[f"{name} 0"].set_ylabel(label, rotation=0, ha="right", va="center")
    return figure


def main(config):
    found = measure(**config["train"])
    print("layer       output        sees     nearest mean right")
    for name, result in found.items():
        shape, sees = (" x ".join(map(str, size)) for size in (result["maps"].shape, (result["sees"],) * 2))
        print(f"{name:8} {shape:>12}  {sees:>9} {result['right']:15.1%}")
    alt = (
        "A handwritten 4 and the maps of five layers for it. In the first its edges shine, each map another side of "
        "them; the pool halves their size; the second convolution has a few bright spots in each map; the last are 84 "
        "numbers. Beside each row, how many digits the nearest class mean puts right: "
        f"{found['pixels']['right']:.0%} for pixels, {found[LAYERS[-1]]['right']:.0%} for the last layer."
    )
    return Shown("feature_maps", draw(found), alt)


if __name__ == "__main__":
    command(main, CONFIG, __doc__)
