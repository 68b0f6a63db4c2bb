"""Import torchvision's models with any PyTorch version.

torchvision's custom operators must match the version of PyTorch, but the models do not use them. The import skips
their registration.
"""

from typing import Any


def models() -> Any:
    """The module `torchvision.models`."""
    import torch

    register, torch.library.register_fake = torch.library.register_fake, lambda *_, **__: lambda function: function
    try:
        import torchvision
    finally:
        torch.library.register_fake = register
    return torchvision.models
