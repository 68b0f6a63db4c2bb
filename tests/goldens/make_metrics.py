"""Write scikit-learn's metrics and PyTorch's losses, for tests: `python -m tests.goldens.make_metrics`.

Needs scikit-learn and torch. `metrics.npz` holds inputs and the value of each metric; `losses.npz` holds inputs,
the value of each loss, and its gradient with respect to the logits.
"""

import pathlib

import numpy as np
import sklearn.metrics as sk
import torch
import torch.nn.functional as F

FOLDER = pathlib.Path(__file__).parent / "tasks"
N, K = 203, 5


def metrics() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    logits = np.round(random.normal(size=(N, K)), 1).astype(np.float32)  # with ties
    logits[:, -1] -= 10  # a class that is neither a label nor a prediction
    label, weight = random.integers(0, K - 1, N), random.uniform(0, 2, N).astype(np.float32)
    weight[::7] = 0
    several = (random.uniform(size=(N, K)) < 0.3).astype(np.float32)
    all_labels, binary = random.integers(0, K, N), random.integers(0, 2, N)
    quantity = random.normal(1000, 1, (N, 2)).astype(np.float32)
    estimate = (quantity + random.normal(0, 0.3, quantity.shape)).astype(np.float32)
    smooth = random.normal(size=(N, K)).astype(np.float32)  # without ties, which the softmax would break by rounding
    arrays = {
        "logits": logits,
        "smooth": smooth,
        "label": label,
        "weight": weight,
        "several": several,
        "all_labels": all_labels,
        "binary": binary,
        "quantity": quantity,
        "estimate": estimate,
    }
    counted, predicted = weight > 0, logits.argmax(1)
    log_p = smooth - np.log(np.exp(smooth.astype(np.float64)).sum(1, keepdims=True))
    w = {"sample_weight": weight}
    values = {
        "accuracy": sk.accuracy_score(label, predicted, **w),
        "top_k": sk.top_k_accuracy_score(label, random_ties(logits), k=2, labels=range(K), **w),
        "mean_iou": sk.jaccard_score(
            label[counted], predicted[counted], average="macro", sample_weight=weight[counted]
        ),
        "confusion_matrix": sk.confusion_matrix(label, predicted, labels=range(K), **w),
        "auroc several": sk.roc_auc_score(several, logits, **w),
        "auroc classes": np.mean([sk.roc_auc_score(all_labels == k, log_p[:, k], **w) for k in range(K)]),
        "auroc binary": sk.roc_auc_score(binary, logits[:, 0], **w),
        "average_precision several": sk.average_precision_score(several, logits, **w),
        "average_precision two": sk.average_precision_score(binary, logits[:, 1] - logits[:, 0], **w),
        "r2": sk.r2_score(quantity.astype(np.float64), estimate.astype(np.float64), **w),
        "mean_absolute_error": sk.mean_absolute_error(quantity, estimate, **w),
    }
    functions = {"precision": sk.precision_score, "recall": sk.recall_score, "f1": sk.f1_score}
    for name, function in functions.items():
        for average in ("macro", "micro"):
            options = {"average": average, "zero_division": 0}
            values[f"{name} {average}"] = function(
                label[counted], predicted[counted], sample_weight=weight[counted], **options
            )
            values[f"{name} {average} several"] = function(several, logits > 0, **w, **options)
    return {f"x/{name}": array for name, array in arrays.items()} | {
        f"y/{name}": np.asarray(value, np.float64) for name, value in values.items()
    }


def random_ties(logits: np.ndarray) -> np.ndarray:
    """Logits without ties, as scikit-learn breaks them by position: the tied class with the larger index wins."""
    return logits.astype(np.float64) - 1e-6 * np.arange(K)


def losses() -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    shape = (3, 4, 5, K)
    z = random.normal(size=shape).astype(np.float32)
    label = random.integers(0, K, shape[:-1])
    label[0, 0, :2] = 255
    several = (random.uniform(size=shape) < 0.4).astype(np.float32)
    class_weight = random.uniform(0.5, 2, K).astype(np.float32)
    target = (z + random.normal(size=shape) * 2).astype(np.float32)
    arrays = {"x/z": z, "x/label": label, "x/several": several, "x/class_weight": class_weight, "x/target": target}

    def last(y):
        return y.movedim(-1, 1)

    t_label, t_weight = torch.tensor(label), torch.tensor(class_weight)
    t_several, t_target = torch.tensor(several), torch.tensor(target)

    def focal(y):
        p = torch.softmax(y, -1).gather(-1, t_label.clamp(max=K - 1)[..., None])[..., 0]
        return (-((1 - p) ** 2) * p.log())[t_label != 255].mean()

    cases = {
        "cross_entropy": lambda y: F.cross_entropy(last(y), t_label, ignore_index=255),
        "cross_entropy weighted": lambda y: F.cross_entropy(
            last(y), t_label, t_weight, ignore_index=255, label_smoothing=0.2
        ),
        "binary_cross_entropy": lambda y: F.binary_cross_entropy_with_logits(
            y, t_several, pos_weight=torch.tensor(3.0)
        ),
        "mean_squared_error": lambda y: F.mse_loss(y, t_target),
        "mean_absolute_error": lambda y: F.l1_loss(y, t_target),
        "huber": lambda y: F.huber_loss(y, t_target, delta=0.7),
        "focal": focal,
    }
    for name, case in cases.items():
        y = torch.tensor(z, requires_grad=True)
        value = case(y)
        value.backward()
        arrays |= {f"y/{name}": value.detach().numpy(), f"dz/{name}": y.grad.numpy()}
    return arrays


if __name__ == "__main__":
    np.savez_compressed(FOLDER / "metrics.npz", **metrics())
    np.savez_compressed(FOLDER / "losses.npz", **losses())
