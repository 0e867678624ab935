"""Matrix products by whichever of torch's two libraries is faster at their shape on this CPU.

torch sends float32 products to MKL; oneDNN, the other library inside torch, took half of its time on an AMD CPU with
512-bit vectors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from pyrovae.compilation.timings import shortest

__all__ = ["faster_products"]

SMALLEST = 2**18  # multiplications: below, the call of the other library costs more than it saves
MARGIN = 0.9  # of the time, below which the other library is taken

aten = torch.ops.aten

_library: torch.library.Library | None = None
_choices: dict[Any, bool] = {}


def faster_products(module: GraphModule, inputs: list[Tensor]) -> None:
    """Send the large float32 products of a graph to oneDNN where that is faster, timed at their own shapes."""
    if not torch.backends.mkldnn.is_available() or any(x.device.type != "cpu" for x in inputs):
        return
    FakeTensorProp(module).propagate(*inputs)  # the shape and the strides of each node
    for node in list(module.graph.nodes):
        if node.target not in (aten.mm.default, aten.addmm.default):
            continue
        bias, a, b = (None, *node.args) if node.target is aten.mm.default else node.args
        if node.kwargs or not _worth_it(bias, a, b):
            continue
        with module.graph.inserting_before(node):
            transposed = module.graph.call_function(aten.t.default, (b,))
            if not a.meta["val"].is_contiguous():  # the compiler's own copy may be a part of what computes it
                a = module.graph.call_function(aten.clone.default, (a,), {"memory_format": torch.contiguous_format})
            product = module.graph.call_function(_linear(), (a, transposed, bias))
            product.meta = node.meta  # the next product may read it
        node.replace_all_uses_with(product)
        module.graph.erase_node(node)
    module.recompile()


def _worth_it(bias: Node | None, a: Any, b: Any) -> bool:
    factors = a.meta["val"], b.meta["val"]
    (m, k), n = factors[0].shape, factors[1].shape[1]
    vector = bias is None or tuple(bias.meta["val"].shape) == (n,)
    if factors[0].dtype != torch.float32 or m * k * n < SMALLEST or not vector:
        return False
    key = (*((*f.shape, *f.stride()) for f in factors), torch.get_num_threads())
    if key not in _choices:
        with torch.random.fork_rng(devices=[]):
            x, y = (torch.empty_strided(f.shape, f.stride()).normal_() for f in factors)
        linear = _linear()
        with torch.no_grad():
            ours, torchs = shortest(lambda: linear(x, y.t(), None), lambda: x @ y)
        _choices[key] = ours < MARGIN * torchs
    return _choices[key]


def _linear() -> Any:
    """``pyrovae::linear(x, w, b)``, :math:`x w^T + b` by oneDNN, which torch's compiler leaves as it is."""
    global _library
    if _library is None:
        product = torch.ops.mkldnn._linear_pointwise.default
        _library = torch.library.Library("pyrovae", "DEF")
        _library.define("linear(Tensor x, Tensor w, Tensor? b) -> Tensor", tags=(torch.Tag.needs_exact_strides,))
        _library.impl("linear", lambda x, w, b: product(x, w, b, "none", [], ""), "CPU")
        _library.impl("linear", lambda x, w, b: x.new_empty(x.shape[0], w.shape[0]), "Meta")
    return torch.ops.pyrovae.linear.default
