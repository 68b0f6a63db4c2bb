"""The networks in Keras 3, on JAX."""

import os

from experiments.benchmarks._networks import _layers
from experiments.benchmarks._networks._contender import LEARNING_RATE, MOMENTUM, Contender, random_batch


def create(net: _layers.Network) -> Contender:
    """Each call copies the batch from the host, as `fit` does."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras
    from keras import layers

    def padded(x, padding):
        return layers.ZeroPadding2D(padding)(x) if padding else x

    def convolution(conv, x):
        same = conv.padding > 0 and conv.stride == 1
        x = x if same else padded(x, conv.padding)
        options = {"strides": conv.stride, "use_bias": conv.bias, "padding": "same" if same else "valid"}
        if conv.groups > 1 and conv.groups == conv.features == x.shape[-1]:
            return layers.DepthwiseConv2D(conv.size, **options)(x)
        return layers.Conv2D(conv.features, conv.size, groups=conv.groups, **options)(x)

    def apply(parts, x):
        for part in parts:
            match part:
                case _layers.Conv():
                    x = convolution(part, x)
                case _layers.Norm():
                    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
                case _layers.LayerNorm():
                    x = layers.LayerNormalization(epsilon=1e-5)(x)
                case _layers.Relu():
                    x = layers.ReLU()(x)
                case _layers.Gelu():
                    x = layers.Activation("gelu")(x)
                case _layers.Silu():
                    x = layers.Activation("silu")(x)
                case _layers.AvgPool(size):
                    x = layers.AveragePooling2D(size)(x)
                case _layers.MaxPool(size, stride, padding):  # after a ReLU, so zeros are never the largest value
                    x = layers.MaxPooling2D(size, stride)(padded(x, padding))
                case _layers.GlobalAvgPool():
                    x = layers.GlobalAveragePooling2D()(x)
                case _layers.Flatten():
                    x = layers.Flatten()(x)
                case _layers.Dense(features):
                    x = layers.Dense(features)(x)
                case _layers.Residual(branch, shortcut):
                    x = layers.Add()([apply(branch, x), apply(shortcut, x)])
                case _layers.Append(branch):
                    x = layers.Concatenate()([x, apply(branch, x)])
                case _layers.Excite(features):
                    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
                    y = layers.Dense(features, activation="silu")(y)
                    x = layers.Multiply()([x, layers.Dense(x.shape[-1], activation="sigmoid")(y)])
        return x

    image, label = random_batch(net)
    inputs = keras.Input(net.shape)
    model = keras.Model(inputs, apply(net.layers, inputs))
    model.compile(
        keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    parameters = sum(variable.value.size for variable in model.trainable_variables)
    return Contender(parameters, lambda: model.train_on_batch(image, label), lambda: model.predict_on_batch(image))
