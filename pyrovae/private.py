"""Every private interface of torch and Pyro in this package; tested with torch 2.15, in part 2.9.1, and Pyro 1.9.2."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pyro
import pyro.settings
import torch
from pyro.nn import PyroModule
from pyro.ops.provenance import ProvenanceTensor
from pyro.optim import PyroOptim
from pyro.optim.optim import _get_state_dict, _load_state_dict
from pyro.poutine import runtime
from torch import Tensor, nn
from torch._decomp import get_decompositions
from torch._higher_order_ops.invoke_subgraph import invoke_subgraph
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    UnsupportedFakeTensorException,
    unset_fake_temporarily,
)
from torch.distributions import constraints
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, get_proxy_mode, make_fx
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._pytree import tree_flatten, tree_unflatten

__all__ = [
    "HIDDEN_WRITES",
    "VALUE_ERRORS",
    "FakeTensor",
    "active_handlers",
    "are_all_true",
    "compiled_by_inductor",
    "default_device",
    "has_forward_hooks",
    "has_global_hooks",
    "has_step_hooks",
    "has_tensor_hooks",
    "make_optimizers",
    "mkldnn_linear",
    "modes_are_active",
    "optimizer_states",
    "put_param",
    "pyro_params",
    "pyro_settings",
    "real_copy",
    "recorded",
    "recording",
    "remove_damaged",
    "repeated",
    "stored_params",
    "take_out",
    "without_provenance",
    "without_values",
]

# what fake tensors raise where Python, or the shape of a result, asks for the value of a tensor
VALUE_ERRORS = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    GuardOnDataDependentSymNode,
)
# positions of tensors that an operation changes in place, which its schema does not say
HIDDEN_WRITES = {
    torch.ops.aten.native_batch_norm.default: (3, 4),
    torch.ops.aten.cudnn_batch_norm.default: (3, 4),
}
# all true, of a check of Pyro's validation
are_all_true = torch._is_all_true
# what the loader of shared libraries says of a file that is not whole
DAMAGED = re.compile(r"(/[^\n:]*\.so): (?:file too short|invalid ELF header|[^\n]*ELF file|file data of)")
COMPARISONS = (Tensor.gt, Tensor.__gt__, torch.gt)
compiler_options: dict[str, bool | int] = {
    "fallback_random": True,  # torch's own draws: a seed gives the numbers that it gives without compilation
    "size_asserts": False,  # sizes and strides are known before the call
    "score_fusion_memory_threshold": 48,  # keep loops apart that share a few bytes alone, as Adam's over two matrices
}
if torch.torch_version.TorchVersion(torch.__version__) < "2.15":
    # in torch 2.9.1 this pass moves random draws past each other, so that a seed gives other numbers
    compiler_options["reorder_for_locality"] = False


def recorded(
    function: Callable[..., Sequence[Tensor]],
    inputs: Sequence[Tensor],
    table: dict[Any, Callable[..., Any]],
    names: Sequence[Any],
) -> GraphModule:
    """What a function does to tensors, run with fake tensors: nothing is drawn, computed or moved in place.

    Operations of ``table`` are written out as it says, those of ``names`` as torch does it.
    """

    def run(*tensors: Tensor) -> Sequence[Tensor]:
        try:
            return function(*tensors)
        except Exception as error:
            error.args = error.args or ("",)  # torch 2.9 reads the first one
            raise

    written_out = {**get_decompositions(names), **table}
    trace = make_fx(run, decomposition_table=written_out, tracing_mode="fake", _allow_non_fake_inputs=True)
    module: GraphModule = trace(*inputs)
    return module


def compiled_by_inductor(module: GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Sequence[Tensor]]:
    """A graph as compiled code that keeps torch's own random draws."""
    # its import logs that there is no CUDA where a CUDA build of torch runs without a device
    extensions = logging.getLogger("torch.utils.cpp_extension")
    was_disabled, extensions.disabled = extensions.disabled, True
    try:
        from torch import _inductor  # a second to import

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\._inductor")  # of its own calls
            # complex operations are left to torch and are right
            warnings.filterwarnings("ignore", message="Torchinductor does not support code generation for complex")
            return _inductor.compile(module, list(inputs), options=compiler_options)
    finally:
        extensions.disabled = was_disabled


def repeated(function: Callable[..., Any], *arguments: object) -> Any:
    """``function(*arguments)``; a recording without gradients compiles it once, however often it is called.

    The function is one of a module or a class. Arguments and results are tensors, tuples of them, and constants; no
    result shares its memory with an argument.
    """
    assert function.__closure__ is None  # what it closes over would not be part of its name
    if get_proxy_mode() is None or torch.is_grad_enabled():
        return function(*arguments)
    leaves, structure = tree_flatten(arguments)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    constants = [leaf for leaf in leaves if not isinstance(leaf, Tensor)]
    layouts = [(tuple(x.shape), x.stride(), x.dtype, x.device) for x in tensors]
    results: list[Any] = []

    def body(*given: Tensor) -> tuple[Tensor, ...]:
        each = iter(given)
        filled = [next(each) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        flat, form = tree_flatten(function(*tree_unflatten(filled, structure)))
        results.append(form)
        return tuple(flat)

    name = f"{function.__module__}.{function.__qualname__} {constants} {layouts}"
    subgraph: Any = body  # a function too, unlike its type says
    flat = invoke_subgraph(subgraph, name, *(x.detach() for x in tensors))
    return tree_unflatten(list(flat), results[0])


def remove_damaged(error: BaseException) -> bool:
    """Remove the file of the compiler's cache that an error names as cut short; whether there was one.

    A process that is killed while the linker runs leaves such a file, and every later process fails on it.
    """
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    folder, found = Path(cache_dir()).resolve(), False
    for name in DAMAGED.findall(str(error)):
        path = Path(name).resolve()
        if folder in path.parents and path.is_file():
            path.unlink()
            found = True
    return found


def mkldnn_linear(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    r""":math:`x w^T + b` by oneDNN."""
    return torch.ops.mkldnn._linear_pointwise.default(x, w, b, "none", [], "")


@contextmanager
def recording() -> Iterator[None]:
    """Inside, Pyro neither looks for NaN in a loss, nor makes fake tensors a subclass, as ``TraceGraph_ELBO`` does."""
    util: Any = pyro.util
    provenance: Any = ProvenanceTensor
    before = util.torch_isnan, util.torch_isinf, provenance.__new__
    util.torch_isnan = util.torch_isinf = lambda x: False
    provenance.__new__ = _carrier
    try:
        yield
    finally:
        util.torch_isnan, util.torch_isinf, provenance.__new__ = before


def _carrier(
    cls: type[ProvenanceTensor], data: Tensor, provenance: frozenset[str] = frozenset(), **kwargs: object
) -> Tensor:
    """``ProvenanceTensor(data, provenance)``; a fake tensor cannot be of two classes, so that another carries it."""
    if not provenance:
        return data
    with torch._C.DisableTorchFunction(), disable_proxy_modes_tracing(), unset_fake_temporarily():
        carrier = Tensor._make_subclass(cls, torch.empty(0))
    carrier._t, carrier._provenance = data, provenance
    return carrier


def real_copy(x: Tensor) -> Tensor:
    """A copy of a real tensor, made outside of the recording around the call."""
    with torch._C.DisableTorchFunction(), disable_proxy_modes_tracing(), unset_fake_temporarily(), torch.no_grad():
        return x.detach().clone()


def without_values(func: Callable[..., object], args: tuple, kwargs: dict[str, object]) -> object:
    """A call of torch by ``TraceEnum_ELBO``, which selects the costs of positive probability, at any values.

    ``mask = prob > 0`` is taken to hold zeros, and the selection keeps them as zeros of both factors of a sum.
    """
    if func is Tensor.all and hasattr(args[0], "_is_of_probs"):
        return False
    if func is Tensor.masked_select and hasattr(args[1], "_is_of_probs"):
        return torch.where(args[1], args[0], 0).flatten()
    result = func(*args, **kwargs)
    first = args[0] if args else None
    is_mask = func in COMPARISONS and hasattr(first, "_pyro_dims")
    if is_mask or (hasattr(first, "_is_of_probs") and isinstance(result, Tensor)):
        result._is_of_probs = True  # type: ignore[attr-defined]  # a tensor
    return result


def has_step_hooks(optimizer: torch.optim.Optimizer) -> bool:
    """Whether hooks of the user's run before or after its step."""
    return bool(optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)


def make_optimizers(
    optim: PyroOptim, params: Iterable[Tensor], check: Callable[[Any, Any], None] | None = None
) -> None:
    """Give each parameter its torch optimizer, with a state that was loaded for it, as Pyro does when it steps it.

    ``check`` is called with an optimizer and a state before the state is loaded.
    """
    for param in params:
        if param not in optim.optim_objs:
            optim.optim_objs[param] = optim._get_optim(param)
            optim.grad_clip[param] = optim._get_grad_clip(param)  # type: ignore[arg-type]  # Pyro's own type is wrong
            name = pyro.get_param_store().param_name(param)
            each = optim.optim_objs[param]
            if (state := optim._state_waiting_to_be_consumed.pop(name, None)) is not None:
                if check is not None:
                    check(each, state)
                _load_state_dict(each, state)
            # a scheduler warns where this says that its optimizer has not stepped: another steps in its place
            getattr(each, "optimizer", each)._opt_called = True


def without_provenance(x: Tensor) -> Tensor:
    """A tensor out of the wrapper that ``TraceGraph_ELBO`` has around it."""
    return x._t if isinstance(x, ProvenanceTensor) else x


def optimizer_states(optim: PyroOptim) -> dict[str, dict[str, object]]:
    """As ``optim.get_state()``, of the parameters that Pyro's store still has."""
    stored = stored_params().items()
    return {name: _get_state_dict(optim.optim_objs[param]) for name, param in stored if param in optim.optim_objs}


def active_handlers() -> Sequence[object]:
    """Pyro's effect handlers that are active now."""
    return runtime._PYRO_STACK


def modes_are_active() -> bool:
    """Whether a mode of torch is active that could change operations; a default device is a setting."""
    if torch._C._len_torch_dispatch_stack():
        return True
    modes = _get_current_function_mode_stack() if torch._C._len_torch_function_stack() else []
    return not all(isinstance(mode, DeviceContext) for mode in modes)


def default_device() -> torch.device | None:
    """The default device, where one is set: asking torch for it takes longer than the rest of a call."""
    return torch.get_default_device() if torch._C._len_torch_function_stack() else None


def has_global_hooks() -> bool:
    """Whether a hook is registered for all modules."""
    return bool(nn.modules.module._has_any_global_hook())


def has_forward_hooks(module: nn.Module) -> bool:
    """Whether hooks run before or after the forward pass of this module."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def has_tensor_hooks(x: Tensor) -> bool:
    """Whether the gradient of a tensor passes a hook of the user's."""
    return bool(x._backward_hooks) or bool(x._post_accumulate_grad_hooks)


def stored_params() -> dict[str, Tensor]:
    """The dictionary of Pyro's parameter store: unconstrained parameters by name."""
    return pyro.get_param_store()._params


def put_param(name: str, value: Tensor) -> None:
    """Put a tensor itself into Pyro's store; ``pyro.param`` stores a copy of one that is not contiguous."""
    store = pyro.get_param_store()
    store._params[name], store._param_to_name[value] = value, name
    store._constraints[name] = constraints.real


def take_out(name: str) -> None:
    """Take an entry out of Pyro's store; ``del store[name]`` fails on a tensor with two names, as a PyroParam has."""
    store = pyro.get_param_store()
    tensor = store._params.pop(name, None)
    store._constraints.pop(name, None)
    if tensor is not None and store._param_to_name.get(tensor) == name:
        del store._param_to_name[tensor]


def pyro_params(module: PyroModule) -> dict[str, Tensor | None]:
    """The unconstrained tensor of each PyroParam of a module itself, by its name in Pyro's store."""
    prefix = f"{module._pyro_name}." if module._pyro_name else ""
    return {prefix + key: module._parameters[f"{key}_unconstrained"] for key in module._pyro_params}


def pyro_settings() -> list[tuple[object, str]]:
    """Owner and attribute of each global setting of Pyro."""
    places: list[tuple[object, str]] = []
    for module, name, _ in pyro.settings._REGISTRY.values():
        owner: object = import_module(module)
        *path, last = name.split(".")
        for part in path:
            owner = getattr(owner, part)
        places.append((owner, last))
    return places
