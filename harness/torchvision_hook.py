"""Let torchvision import beside a CPU build of torch.

torchvision's Linux wheel on PyPI is a CUDA build. Beside CPU-only torch its compiled operators cannot load, and
`import torchvision` (so also timm) dies with "operator torchvision::nms does not exist". Nothing this project uses
needs those operators, so after that failure their schemas are declared and the import is tried once more. Where the
operators load, nothing changes.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from types import ModuleType
from typing import Any

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_alive: list[Any] = []  # the declarations live as long as the Library object does


class _Loader(importlib.abc.Loader):
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        try:
            self.inner.exec_module(module)
            return
        except RuntimeError as error:
            if "operator torchvision::" not in str(error):
                raise
        for name in [name for name in sys.modules if name.startswith("torchvision.")]:
            del sys.modules[name]
        import torch

        library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            library.define(schema)
        _alive.append(library)
        self.inner.exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != "torchvision":
            return None
        sys.meta_path.remove(self)  # for now: `datasets` and others ask whether there is one, and import it later
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec and spec.loader:
            spec.loader = _Loader(spec.loader)
        return spec


def install() -> None:
    """Put the hook in place; imports neither torch nor torchvision."""
    if "torchvision" not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
