"""Knowledge distillation: LeNet-5 learns from few labelled digits, with and without a larger network as its teacher.

    python -m experiments.distillation       95.1 % from 1,000 digits, against 92.9 % without the teacher, which has
                                             97.6 %; half a minute on 2 cores

Both students start from the same initial parameters, and train on the same digits for the same number of steps. The
teacher, the network of `experiments.mnist_cnn`, trains on all training digits with augmentation. A student thus learns
from a network that has more data than the student itself: this is the purpose of a teacher, but no fair comparison of
two methods on the same data. With teacher.digits=1000 the teacher has no more digits than the students.

Source: Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015.
"""

from experiments import mnist_cnn
from experiments._settings import config_error
from jaxcnn import cross_entropy, data, distillation, models, serial, train

CONFIG = {
    "data": {"name": "mnist_small", "root": ""},
    "digits": 1000,  # labelled digits of the students
    "distillation": {"temperature": 4.0, "weight": 0.9},
    "teacher": {
        "digits": 0,  # of the teacher; 0: all training digits
        "width": 16,
        "dropout_rate": 0.4,
        "epochs": 6,
        "optimizer": {"name": "adamw", "learning_rate": 3e-3},
        "augment": [["rotate", 10], ["translate", 2]],
    },
    "train": train.FIT | {"epochs": 30, "batch_size": 50, "optimizer": {"name": "adam", "learning_rate": 2e-3}},
    "runs": "runs",
    "folder": "",
}
LIMITS = {
    "digits": (1, 10**6),
    "distillation.temperature": (1e-6, 1e6),
    "teacher.digits": (0, 10**6),
    "teacher.width": (1, 10**4),
    "teacher.dropout_rate": (0, 1),
}


def first(digits, key, count):
    """Return the first `count` digits, the setting `key`; 0: all."""
    count = count or len(digits.images)
    if count > len(digits.images):
        raise train.ConfigError(f"{key} must be at most {len(digits.images)}, the number of digits, got {count}")
    return data.Dataset(digits.images[:count], digits.labels[:count], digits.classes)


def main(config):
    train.require(config, LIMITS)
    teacher_config = {
        "seed": config["train"]["seed"],
        "checkpoint": {"keep": 0},
        **{name: config["teacher"][name] for name in ("epochs", "optimizer", "augment")},
    }
    train.resolve(config["train"])
    train.resolve(teacher_config)
    name, root = config["data"]["name"], config["data"]["root"]
    digits, test_digits = (data.load(name, split, root=root or None) for split in ("train", "test"))
    few = first(digits, "digits", config["digits"])
    teacher_digits = first(digits, "teacher.digits", config["teacher"]["digits"])
    with config_error("distillation"):
        distillation(cross_entropy, lambda x: x, **config["distillation"])
    run = train.Run("distillation", config, root=config["runs"], folder=config["folder"])
    result = {}

    def fit(name, model, train_data, settings, loss=cross_entropy):
        run.say(f"\n{name}")
        part = train.Run(name, config, folder=run.folder / name.replace(" ", "_"))
        fitted = train.fit(model, train_data, eval_data=test_digits, loss=loss, config=settings, run=part)
        result[name] = fitted.history[-1]["test"]
        return fitted

    network = mnist_cnn.network(teacher_digits, config["teacher"]["width"], config["teacher"]["dropout_rate"])
    trained = fit("teacher", network, teacher_digits, teacher_config)
    teacher = lambda x: network.apply(trained.params, trained.state, x, train=False)[0]
    student = serial(normalize=data.normalize(few), lenet=models.lenet5())
    fit("student alone", student, few, config["train"])
    with_teacher = distillation(cross_entropy, teacher, **config["distillation"])
    fit("student with teacher", student, few, config["train"], with_teacher)
    for name, metrics in result.items():
        print(f"{name:22} {metrics['accuracy']:.2%} of {len(test_digits.images):,} test digits")
    run.log(f"see {run.folder}", **result)
    return result


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)
