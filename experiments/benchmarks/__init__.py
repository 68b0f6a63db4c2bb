"""Benchmarks of jaxcnn against PyTorch, Flax, Equinox, stax and plain `lax`, on the same work in the same run.

    pip install '.[bench]'
    python -m experiments.benchmarks.ops        each operation, forward and both gradients
    python -m experiments.benchmarks.sweep      random operations against plain lax
    python -m experiments.benchmarks.nets       training steps and inference of whole networks
    python -m experiments.benchmarks.vmap       many networks in one program, against separate calls
    python -m experiments.benchmarks.many_runs  100 training runs as a sweep, against consecutive ones
    python -m experiments.benchmarks.scan       training steps inside `lax.scan`
    python -m experiments.benchmarks.startup    import, first step, first epoch
    python -m experiments.benchmarks.compilation            compilation time
    python -m experiments.benchmarks.spread     a training step and operations in 20 processes
    python -m experiments.benchmarks.scaling    time and memory by batch size, image size and width
    python -m experiments.benchmarks.pipeline   overhead of `train.fit` over a bare training step
    python -m experiments.benchmarks.imagenet_throughput    images per second of ImageNet networks
    python -m experiments.benchmarks.mnist_speedrun         99 % of MNIST from the start of the process
    python -m experiments.benchmarks.cifar10_speedrun       94 % of CIFAR-10, on a GPU
    python -m experiments.benchmarks.ablations              these two with one trick disabled at a time
    python -m experiments.benchmarks.cifar10_accuracy       accuracy against the same recipe in PyTorch
    python -m experiments.benchmarks.seeds      experiments over several seeds
    python -m experiments.benchmarks.gpu        checks and benchmarks for one GPU in 8 minutes
    python -m experiments.benchmarks.records    write the table of records from the results

Each benchmark prints a table and writes the measurements, versions and hardware to a JSON file in `results/`. The same
commands run on a GPU; `gpu` runs the most important measurements within a time budget. Frameworks that are not
installed (PyTorch, Flax, Equinox, Keras) are skipped. `train.reuse_memory` is on for all contenders of a process.
"""
