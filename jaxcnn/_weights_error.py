"""The error of weights. It is not in `jaxcnn.weights`, because that imports all models, which takes time."""

from collections.abc import Iterable


class WeightsError(ValueError):
    """The weights do not fit the model, or the file is not a readable weight file.

    If the weights do not fit, the attributes list all names with their shapes: `missing` in the state dict, `unused` by
    the model, and `wrong_shape`. The message shows the first of each.
    """

    def __init__(
        self, message: str, missing: Iterable[str] = (), unused: Iterable[str] = (), wrong_shape: Iterable[str] = ()
    ):
        super().__init__(message)
        self.missing, self.unused, self.wrong_shape = [*missing], [*unused], [*wrong_shape]
