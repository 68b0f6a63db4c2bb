"""From edges to parts to digits: deeper layers have more and smaller maps, and they separate the classes better.

    python -m experiments.concepts.feature_maps

The figure shows the feature maps of a trained LeNet-5 for one digit. The first layer responds to edges; each of its
values depends on 5 x 5 pixels. A value of the second convolution depends on 14 x 14 pixels, half of the digit. It
responds at few positions, to a part such as a corner or the end of a stroke. To measure how well a layer separates the
classes, compute the mean of its activations for each class and assign every test digit to the nearest mean. Deeper
layers classify more test digits correctly.
"""

import numpy as np

from experiments.concepts._digits import digits
from experiments.concepts._figure import FIGURE_WIDTH, ConceptFigure, command, drawing, image, mosaic
from experiments.concepts.learned_filters import CONFIG, lenet
from jaxcnn import explain

LAYERS = ("relu1", "pool1", "relu2", "pool2", "relu4")
MAX_MAPS = 8  # drawn per layer


def nearest_mean(features, labels, queries):
    """Return the class with the nearest mean of training `features` (N, F), for each of `queries` (M, F)."""
    means = np.stack([features[labels == label].mean(0) for label in range(10)])
    return ((queries[:, None] - means) ** 2).sum(-1).argmin(1)


def measure(seed, epochs):
    """Return for each layer: the maps of one digit, the receptive field, and the accuracy of the nearest mean."""
    model, params, state, _ = lenet(seed, epochs)
    (images, labels), (test_images, test_labels) = digits("train"), digits("test")
    images, labels = images[:2000], labels[:2000]
    pattern = "|".join(LAYERS)
    train_maps = {"pixels": images} | explain.feature_maps(model, params, state, images, pattern)
    test_maps = {"pixels": test_images} | explain.feature_maps(model, params, state, test_images, pattern)
    fields = {layer.path: layer.fields[0].size for layer in explain.receptive_field(model, images[:1]).layers}
    first_four = np.flatnonzero(test_labels == 4)[0]
    results = {}
    for name, maps in test_maps.items():
        flat = [np.reshape(activations, (len(activations), -1)) for activations in (train_maps[name], maps)]
        results[name] = {
            "maps": np.asarray(maps[first_four]),
            "field": fields.get(name, 1),
            "accuracy": float((nearest_mean(flat[0], labels, flat[1]) == test_labels).mean()),
        }
    return results


@drawing
def draw(results):
    columns = range(MAX_MAPS)
    layout = [[f"{name} {i if result['maps'].ndim == 3 else 0}" for i in columns] for name, result in results.items()]
    figure, axes = mosaic(layout, FIGURE_WIDTH, 4.2)
    for name, result in results.items():
        maps, strip = result["maps"], result["maps"].ndim == 1
        tiles = maps[None, None] if strip else np.moveaxis(maps, -1, 0)
        largest = np.argsort(-tiles.sum((1, 2)), kind="stable")[:MAX_MAPS]
        for i in columns[: 1 if strip else None]:
            ax = axes[f"{name} {i}"]
            if i < len(largest):
                image(ax, tiles[largest[i]], limits=(0, maps.max()))
            else:
                ax.set_axis_off()
        if strip:
            axes[f"{name} 0"].set_aspect(2)
        label = f"{name}\n{' x '.join(map(str, maps.shape))}\n{result['accuracy']:.0%} correct"
        axes[f"{name} 0"].set_ylabel(label, rotation=0, ha="right", va="center")
    return figure


def main(config):
    results = measure(**config["train"])
    print("layer          output  receptive field  nearest-mean accuracy")
    for name, result in results.items():
        shape, field = (" x ".join(map(str, size)) for size in (result["maps"].shape, (result["field"],) * 2))
        print(f"{name:8} {shape:>12}  {field:>15}  {result['accuracy']:>21.1%}")
    alt = (
        "A handwritten 4 and its feature maps in five layers. In the first, edges are bright; each map shows other "
        "edges. Pooling halves the size. The second convolution has a few bright spots per map. The last layer has 84 "
        "values. Next to each row is the accuracy of the nearest class mean: "
        f"{results['pixels']['accuracy']:.0%} for pixels, {results[LAYERS[-1]]['accuracy']:.0%} for the last layer."
    )
    return ConceptFigure("feature_maps", draw(results), alt)


if __name__ == "__main__":
    command(main, CONFIG, __doc__)
