"""Open-vocabulary attention maps for semi-automatic mask annotation.

The public names, listed with their modules in `__init__.pyi`, are loaded when they are
first used, so that importing the package, or asking the command line for help, does not
wait for torch.
"""

import lazy_loader as _lazy

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
