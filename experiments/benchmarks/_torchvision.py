"""torchvision's models beside any PyTorch: its own operators, which the models do not use, need not fit."""

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
