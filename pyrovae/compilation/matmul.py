"""Matrix products by the fastest way at each shape: MKL, oneDNN, or for small ones a loop.

torch computes float32 products with MKL. On an AMD CPU with 512-bit vectors oneDNN took half of that time. oneDNN
copies its second factor into a layout of its own. In the product of a small batch and a large weight it is therefore
faster to make the batch the second factor, :math:`a b = (b^T a^T)^T`. A product of a few thousand multiplications takes
less time as a loop, which the compiler fuses with its neighbours, than as a call of either library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from pyrovae import private
from pyrovae.compilation.timings import shortest

__all__ = ["faster_products"]

SMALLEST = 2**18  # multiplications; for smaller products the call of oneDNN costs more than it saves
TINY = 2**13  # multiplications; up to which a loop takes less time than a call
MARGIN = 0.97  # oneDNN is used if it takes less than this share of MKL's time

aten = torch.ops.aten

Product = Callable[[Graph, Node | None, Node, Node], Node]  # (graph, bias or None, a, b) to the node of a b + bias

_library: torch.library.Library | None = None
_choices: dict[Any, Product | None] = {}


def faster_products(module: GraphModule, inputs: Sequence[Tensor]) -> None:
    """Replace large float32 products of a graph by oneDNN's, where timing says so, and tiny products by loops."""
    if not torch.backends.mkldnn.is_available() or any(x.device.type != "cpu" for x in inputs):
        return
    for node in list(module.graph.nodes):
        if node.target not in (aten.mm.default, aten.addmm.default):
            continue
        bias, a, b = (None, *node.args) if node.target is aten.mm.default else node.args
        if node.kwargs or "val" not in a.meta or "val" not in b.meta or (faster := _fastest(bias, a, b)) is None:
            continue
        with module.graph.inserting_before(node):
            product = faster(module.graph, bias, a, b)
        product.meta = node.meta  # the choice for the next product may read the shape of this one
        node.replace_all_uses_with(product)
        module.graph.erase_node(node)
    module.recompile()


def _fastest(bias: Node | None, a: Any, b: Any) -> Product | None:
    """The fastest way to compute a product, or None where that is torch's own."""
    factors = a.meta["val"], b.meta["val"]
    (m, k), n = factors[0].shape, factors[1].shape[1]
    vector = bias is None or ("val" in bias.meta and tuple(bias.meta["val"].shape) == (n,))
    if m * k * n <= TINY and factors[0].dtype in (torch.float32, torch.float64):
        return _summed
    if factors[0].dtype != torch.float32 or m * k * n < SMALLEST or not vector:
        return None
    if any(0 in f.stride() for f in factors):  # an expanded tensor, which has no layout to measure
        return None
    key = (*((*f.shape, *f.stride()) for f in factors), torch.get_num_threads())
    if key not in _choices:
        with torch.random.fork_rng(devices=[]):
            x, y = (torch.empty_strided(f.shape, f.stride()).normal_() for f in factors)
        linear = _linear()
        with torch.no_grad():
            torchs, straight, turned = shortest(
                lambda: x @ y, lambda: linear(x, y.t(), None), lambda: linear(y.t(), x, None).t().contiguous()
            )
        faster = _straight if straight <= turned else _turned
        _choices[key] = faster if min(straight, turned) < MARGIN * torchs else None
    return _choices[key]


def _summed(graph: Graph, bias: Node | None, a: Node, b: Node) -> Node:
    columns = graph.call_function(aten.unsqueeze.default, (a, 2))
    product = graph.call_function(aten.mul.Tensor, (columns, graph.call_function(aten.unsqueeze.default, (b, 0))))
    summed = graph.call_function(aten.sum.dim_IntList, (product, [1]))
    return summed if bias is None else graph.call_function(aten.add.Tensor, (summed, bias))


def _straight(graph: Graph, bias: Node | None, a: Node, b: Node) -> Node:
    if not a.meta["val"].is_contiguous():  # the compiler can fuse this copy with the operation that computes a
        a = _contiguous(graph, a)
    return graph.call_function(_linear(), (a, graph.call_function(aten.t.default, (b,)), bias))


def _turned(graph: Graph, bias: Node | None, a: Node, b: Node) -> Node:
    turned = graph.call_function(_linear(), (graph.call_function(aten.t.default, (b,)), a, None))
    product = _contiguous(graph, graph.call_function(aten.t.default, (turned,)))
    return product if bias is None else graph.call_function(aten.add.Tensor, (product, bias))


def _contiguous(graph: Graph, x: Node) -> Node:
    return graph.call_function(aten.clone.default, (x,), {"memory_format": torch.contiguous_format})


def _linear() -> Any:
    """``pyrovae::linear(x, w, b)``, :math:`x w^T + b` by oneDNN, which torch's compiler does not change."""
    global _library
    if _library is None:
        _library = torch.library.Library("pyrovae", "DEF")
        _library.define("linear(Tensor x, Tensor w, Tensor? b) -> Tensor", tags=(torch.Tag.needs_exact_strides,))
        _library.impl("linear", private.mkldnn_linear, "CPU")
        _library.impl("linear", lambda x, w, b: x.new_empty(x.shape[0], w.shape[0]), "Meta")
    return torch.ops.pyrovae.linear.default
