"""Feature pyramid networks: feature maps at all scales, each with the context of the coarser ones."""

from operator import itemgetter

import jax

from jaxcnn._combine import parallel, serial
from jaxcnn._conv import conv
from jaxcnn._layer import Layer, constructor, from_input_shape
from jaxcnn._resize import resize
from jaxcnn.models._backbone import as_backbone, check_maps


@constructor
def feature_pyramid(backbone: str | Layer, *, features: int = 256) -> Layer:
    """(N, *spatial, C) -> {stride: (N, *spatial / stride, features)}: a feature pyramid on a backbone.

    merged[s] = conv1x1(maps[s]) + enlarge(merged[2 s]),  y[s] = conv3x3(merged[s])

    New in 2017: coarse feature maps have the context, fine ones the positions. A pathway from coarse to fine adds both,
    so that one detector or segmentation head fits the maps of all scales. `enlarge` repeats the nearest values.

    Args:
        backbone: the name of a classifier, with the default outputs of `backbone`, or a layer whose output is a dict of
            feature maps.
        features: channels of all outputs.

    Params:
        backbone: those of the backbone. For each key of the feature maps, with biases:
        pyramid/lateral/KEY/conv/kernel (1, 1, C, features), pyramid/smooth/KEY/conv/kernel (3, 3, features, features).

    Raises:
        ValueError: if the backbone's output is not a dict.

    Example:
        >>> maps = jaxcnn.models.backbone("resnet18", outputs={"c4": "stage3", "c5": "stage4"})
        >>> model = jaxcnn.models.feature_pyramid(maps)
        >>> x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
        >>> params, state = jax.eval_shape(model.init, jax.random.key(0), x)
        >>> y, _ = jax.eval_shape(lambda *a: model.apply(*a, train=False), params, state, x)
        >>> {key: map.shape for key, map in y.items()}
        {'c4': (1, 4, 4, 256), 'c5': (1, 2, 2, 256)}

    Source: Lin et al., "Feature pyramid networks for object detection", 2017.
    """

    def pyramid(shapes):
        check_maps("feature_pyramid", shapes)
        fine_to_coarse = sorted(shapes, key=lambda key: -shapes[key][1])

        def convolve_each(size):
            branches = {str(key): serial(map=itemgetter(key), conv=conv(features, size)) for key in fine_to_coarse}
            return parallel(lambda *ys: dict(zip(fine_to_coarse, ys, strict=True)), **branches)

        def merge(maps):
            *finer, coarsest = fine_to_coarse
            merged = {coarsest: maps[coarsest]}
            y = merged[coarsest]
            for key in reversed(finer):
                merged[key] = y = maps[key] + enlarge(y, maps[key].shape[1:-1])
            return merged

        return serial(lateral=convolve_each(1), merge=merge, smooth=convolve_each(3))

    return serial(backbone=as_backbone(backbone), pyramid=from_input_shape(pyramid))


def enlarge(x: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    """(N, *spatial, C) -> (N, *sizes, C): PyTorch's nearest interpolation, y[i] = x[floor(i * spatial / sizes)]."""
    nearest = resize(sizes, "nearest", coordinates="asymmetric", rounding="floor")
    return nearest.apply({}, {}, x, train=False)[0]
