"""What is fast: jaxcnn against PyTorch, Flax, Equinox, stax and plain `lax`, on the same work in the same run.

    pip install '.[bench]'
    python -m experiments.benchmarks.ops        each operation, forward and both gradients
    python -m experiments.benchmarks.sweep      random operations: nothing is slower than plain lax
    python -m experiments.benchmarks.nets       training steps and inference of whole networks
    python -m experiments.benchmarks.scan       the same steps inside of a loop
    python -m experiments.benchmarks.startup    import, first step, first epoch
    python -m experiments.benchmarks.compilation            how long compilers take
    python -m experiments.benchmarks.scaling    time and memory against batch, image size and width
    python -m experiments.benchmarks.pipeline   what `train.fit` adds to a bare training step
    python -m experiments.benchmarks.imagenet_throughput    images a second of networks for ImageNet
    python -m experiments.benchmarks.mnist_speedrun         99 % of MNIST from the start of the process
    python -m experiments.benchmarks.cifar10_speedrun       94 % of CIFAR-10, on a GPU
    python -m experiments.benchmarks.ablations              what each trick of these two is worth
    python -m experiments.benchmarks.cifar10_accuracy       the same recipe in PyTorch, the same accuracy
    python -m experiments.benchmarks.seeds      experiments over several seeds
    python -m experiments.benchmarks.records    the table of records, from the files of the others

All contenders run in one process, which keeps the memory it frees (`train.reuse_memory`).
Each prints a table and writes what it measured, with versions and hardware, as JSON beside itself. The same
commands run on a GPU. What is not installed (PyTorch, Flax, Equinox) is left out of the table.
"""
