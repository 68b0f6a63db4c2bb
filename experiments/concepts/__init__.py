"""The main ideas of convolutional networks, each demonstrated by a program.

    python -m experiments.concepts                       runs all of them and writes a page with their figures
    python -m experiments.concepts.edge_detection        runs one: prints its results and saves its figure

Each file begins with a claim that its results confirm. `measure` computes the results, `draw` plots them.
"""
