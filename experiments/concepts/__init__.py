"""The ideas that convolutional networks are made of, each as a program that shows it.

    python -m experiments.concepts                       all of them, and a page with their figures
    python -m experiments.concepts.edge_detection        one: it prints its numbers and saves its figure

Each file begins with the sentence that its numbers prove. `measure` computes them, `draw` draws them.
"""
