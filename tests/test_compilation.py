"""What the compiler is given: functions as exact as torch's, products by another library, nothing of Python."""

from __future__ import annotations

import math
import time

import mpmath
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional

from pyrovae import private
from pyrovae.compilation import Program, Unrecordable, disagreement, record
from pyrovae.compilation.functions import FASTER, MADE_OF_THEM, digamma, expm1, lgamma, log1p, polygamma
from pyrovae.compilation.matmul import faster_products
from pyrovae.compilation.timings import REPEATS, shortest


def far_and_near(dtype):
    """Numbers of every size, and what a float cannot tell from 0 or -1."""
    small = torch.logspace(-40, 0, 801, dtype=torch.float64)
    return torch.cat([small, -small, torch.linspace(-0.999, 30, 401, dtype=torch.float64)]).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("ours", "exact"), [(log1p, mpmath.log1p), (expm1, mpmath.expm1)], ids=["log1p", "expm1"])
def test_functions_are_exact_to_three_units_in_the_last_place(ours, exact, dtype):
    x = far_and_near(dtype)
    x = x[x > -1] if ours is log1p else x
    with mpmath.workdps(40):
        want = torch.tensor([float(exact(mpmath.mpf(value))) for value in x.tolist()], dtype=torch.float64)
    got = ours(x).double()
    tiny = want.abs() < torch.finfo(dtype).tiny
    assert ((got - want).abs() <= 3 * torch.finfo(dtype).eps * want.abs() + tiny * torch.finfo(dtype).tiny).all()


@pytest.mark.parametrize(("ours", "torchs"), [(log1p, torch.log1p), (expm1, torch.expm1)], ids=["log1p", "expm1"])
def test_functions_agree_with_torch_where_nothing_is_finite(ours, torchs):
    x = torch.tensor([0.0, -0.0, -1.0, -2.0, torch.inf, -torch.inf, torch.nan, 1e38])
    assert torch.allclose(ours(x), torchs(x), equal_nan=True, rtol=1e-6)
    assert torch.equal(ours(x).signbit()[:2], torchs(x).signbit()[:2])


def trigamma(x):
    return polygamma(1, x)


GAMMA = {
    "lgamma": (lgamma, torch.lgamma, lambda x: mpmath.log(abs(mpmath.gamma(x)))),
    "digamma": (digamma, torch.digamma, mpmath.digamma),
    "trigamma": (trigamma, lambda x: torch.polygamma(1, x), lambda x: mpmath.psi(1, x)),
}


@pytest.mark.parametrize("name", GAMMA)
def test_functions_of_gamma_are_exact_to_ten_units_in_the_last_place(name):
    """Near the zeros of log-gamma and digamma of 1."""
    ours, _, exact = GAMMA[name]
    x = torch.cat([torch.logspace(-37, 5, 600), torch.linspace(0.01, 12, 1500), torch.linspace(-9.97, -0.03, 300)])
    x = x[x != x.floor()].float()
    with mpmath.workdps(40):
        want = torch.tensor([float(exact(mpmath.mpf(value))) for value in x.tolist()], dtype=torch.float64)
    finite = want.abs() < torch.finfo(torch.float32).max
    got, least = ours(x).double(), 0.0 if name == "trigamma" else 1.0
    bound = 10 * torch.finfo(torch.float32).eps * want.abs().clamp(min=least)
    assert ((got - want).abs() <= bound)[finite].all()
    assert (got == want.sign() * torch.inf)[~finite].all()


@pytest.mark.parametrize("name", GAMMA)
def test_functions_of_gamma_agree_with_torch_where_nothing_is_finite(name):
    ours, torchs, _ = GAMMA[name]
    x = torch.tensor([0.0, -0.0, torch.inf, torch.nan, 1e38, *([] if name == "trigamma" else [-1.0, -2.0])])
    assert torch.allclose(ours(x), torchs(x), equal_nan=True, rtol=1e-6)


def test_functions_of_gamma_leave_doubles_and_other_orders_to_torch():
    x = torch.ones(2, dtype=torch.float64)
    assert [f(x) for f in (lgamma, digamma, trigamma)] == [NotImplemented] * 3
    assert polygamma(2, x.float()) is NotImplemented

    def derivatives(x):
        return torch.lgamma(x), torch.digamma(x), torch.polygamma(2, x)

    for got, want in zip(private.recorded(derivatives, [x], FASTER, [])(x), derivatives(x), strict=True):
        assert torch.equal(got, want)


def test_a_graph_with_these_functions_gives_its_own_numbers():
    def losses(x, y):
        bernoulli = functional.binary_cross_entropy_with_logits(x, y, reduction="none")
        return bernoulli, functional.softplus(x), functional.logsigmoid(x), torch.expm1(0.1 * x), torch.log1p(y)

    x, y = torch.linspace(-60, 60, 500), torch.linspace(0, 1, 500)
    written_out = private.recorded(losses, [x, y], FASTER, MADE_OF_THEM)
    targets = {node.target for node in written_out.graph.nodes}
    assert not targets & {torch.ops.aten.log1p.default, torch.ops.aten.expm1.default, torch.ops.aten.softplus.default}
    for got, want in zip(written_out(x, y), losses(x, y), strict=True):
        assert torch.allclose(got, want, rtol=1e-6, atol=1e-37)


STRAIGHT, TURNED = [2.0, 1.0, 1.5], [2.0, 1.5, 1.0]  # seconds of torch's product, of the other's, of b^T a^T by it


@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("times", [STRAIGHT, TURNED])
def test_products_by_the_other_library_are_the_products(monkeypatch, transposed, bias, times):
    monkeypatch.setattr("pyrovae.compilation.matmul.shortest", lambda *calls: times)
    monkeypatch.setattr("pyrovae.compilation.matmul._choices", {})
    a = torch.randn(96, 64).t() if transposed[0] else torch.randn(64, 96)
    b = torch.randn(80, 96).t() if transposed[1] else torch.randn(96, 80)
    c = torch.randn(80)

    def products(a, b, c):
        return (torch.addmm(c, a, b) if bias else a @ b, a[:2, :3] @ b[:3, :4])

    graph = make_fx(products)(a, b, c)
    faster_products(graph, [a, b, c])
    names = [str(node.target) for node in graph.graph.nodes]
    assert names.count("pyrovae.linear.default") == 1  # not the small one
    first = next(node.args[0] for node in graph.graph.nodes if "pyrovae.linear" in str(node.target))
    assert (first.target is torch.ops.aten.t.default) == (times is TURNED), "b^T comes first"
    for got, want in zip(graph(a, b, c), products(a, b, c), strict=True):
        assert torch.allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("bias", [(5,), (4, 5), None])
def test_small_products_are_loops_and_the_products(dtype, bias):
    """In bfloat16 a loop would round each term of a sum."""
    a, b = torch.randn(6, 4, dtype=dtype).t(), torch.randn(6, 5, dtype=dtype)
    c = None if bias is None else torch.randn(bias, dtype=dtype)

    def product(a, b, *c):
        return torch.addmm(*c, a, b) if c else a @ b

    inputs = [a, b] if c is None else [a, b, c]
    graph = make_fx(product)(*inputs)
    faster_products(graph, inputs)
    names = {str(node.target) for node in graph.graph.nodes}
    assert bool(names & {"aten.mm.default", "aten.addmm.default"}) == (dtype is torch.bfloat16)
    torch.testing.assert_close(graph(*inputs), product(*inputs))


def test_a_slow_product_is_timed_once_and_a_fast_one_often():
    calls = {"slow": 0, "fast": 0}

    def call(name, seconds):
        calls[name] += 1
        time.sleep(seconds)

    slow, fast = shortest(lambda: call("slow", 0.12), lambda: call("fast", 0.0))
    assert calls == {"slow": 1, "fast": 1}, "by turns"
    assert slow > 0.1 > fast
    shortest(lambda: call("fast", 0.0))
    assert calls["fast"] == 1 + REPEATS


def test_products_of_float64_and_slower_ones_are_left(monkeypatch):
    monkeypatch.setattr("pyrovae.compilation.matmul.shortest", lambda *calls: [0.5, 1.0, 1.0])
    monkeypatch.setattr("pyrovae.compilation.matmul._choices", {})
    for dtype in (torch.float32, torch.float64):
        a, b = torch.randn(64, 96, dtype=dtype), torch.randn(96, 80, dtype=dtype)
        graph = make_fx(torch.mm)(a, b)
        faster_products(graph, [a, b])
        assert torch.ops.aten.mm.default in {node.target for node in graph.graph.nodes}


def test_a_product_of_an_expanded_tensor_is_left(monkeypatch):
    monkeypatch.setattr("pyrovae.compilation.matmul._choices", {})
    a, b = torch.randn(1, 96), torch.randn(96, 80)
    graph = make_fx(lambda a, b: a.expand(64, -1) @ b)(a, b)
    faster_products(graph, [a, b])
    assert torch.ops.aten.mm.default in {node.target for node in graph.graph.nodes}


@pytest.mark.parametrize("times", [STRAIGHT, TURNED])
def test_a_product_of_a_product_is_by_the_other_library_too(monkeypatch, times):
    monkeypatch.setattr("pyrovae.compilation.matmul.shortest", lambda *calls: times)
    monkeypatch.setattr("pyrovae.compilation.matmul._choices", {})
    a, b, c = torch.randn(64, 96), torch.randn(96, 80), torch.randn(80, 72)
    graph = make_fx(lambda a, b, c: a @ b @ c)(a, b, c)
    faster_products(graph, [a, b, c])
    assert [str(node.target) for node in graph.graph.nodes].count("pyrovae.linear.default") == 2
    assert torch.allclose(graph(a, b, c), a @ b @ c, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("times", [STRAIGHT, TURNED])
def test_a_compiled_product_is_right(monkeypatch, times):
    monkeypatch.setattr("pyrovae.compilation.matmul.shortest", lambda *calls: times)
    monkeypatch.setattr("pyrovae.compilation.matmul._choices", {})
    layer = torch.nn.Linear(80, 96)
    x = torch.randn(64, 80)
    graph = record(lambda x: (functional.softplus(layer(x)),), [x])
    program = Program(graph, [x])
    assert torch.allclose(program([x], graph.outside)[0], functional.softplus(layer(x)), rtol=1e-4, atol=1e-5)


def test_results_that_are_infinite_or_nan_in_the_same_places_are_the_same():
    x = torch.tensor([0.0, 1.0, 2.0, -1.0]).log()
    assert disagreement([x], [x.clone()]) is None
    assert "norm" in disagreement([x], [torch.tensor([0.0, 0.0, 0.7, 0.0])])


def test_nan_where_there_was_a_number_is_another_result():
    assert disagreement([torch.tensor(0.7)], [torch.tensor(math.nan)]) == "nan where it should be 0.7"


def test_rounding_is_no_disagreement_and_more_is():
    x = torch.linspace(1, 2, 100)
    assert disagreement([x, x], [x, x * (1 + 1e-5)]) is None
    assert disagreement([x, x], [x, x * 1.01]) is not None
    assert disagreement([torch.zeros(3)], [torch.full((3,), 1e-7)]) is not None
    assert disagreement([torch.zeros(3)], [torch.full((3,), 1e-7)], rounding=1e-6) is None


def test_compiled_code_takes_inputs_of_any_strides():
    x = torch.arange(12.0).reshape(4, 3)
    given = [x[:1].expand(4, 3)]
    program = Program(record(lambda x: (x.cumsum(0).sin(),), given), given)
    for other in (
        x,
        x.t().contiguous().t(),
        torch.cat([x, x], 1)[:, :3],
        x[:1].expand(4, 3),
        x.flip(0)[::2].repeat(2, 1),
    ):
        assert torch.allclose(program([other], [])[0], other.cumsum(0).sin())


def test_complex_numbers_are_compiled_without_a_warning_of_the_compiler():
    x = torch.linspace(-1, 2, 12).reshape(4, 3)
    program = Program(record(lambda x: (torch.fft.fft(x).abs(),), [x]), [x])  # a warning is an error in this suite
    assert torch.allclose(program([x], [])[0], torch.fft.fft(x).abs())


def test_a_damaged_file_of_the_compilers_cache_is_removed_once(tmp_path, monkeypatch):
    """As a kill during linking leaves it; files elsewhere are not touched."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "cache/ab").mkdir(parents=True)
    cut, elsewhere = tmp_path / "cache/ab/x.main.so", tmp_path / "y.main.so"
    x, calls = torch.ones(3), []

    def compiler(module, inputs):
        calls.append(None)
        if path.exists():
            raise RuntimeError(f"ctypes: {path}: file too short")
        return module

    monkeypatch.setattr(private, "compiled_by_inductor", compiler)
    graph = record(lambda a: (a + 1,), [x])
    for path in (cut, elsewhere):
        path.write_bytes(b"")
    path = cut
    assert torch.equal(Program(graph, [x])([x], [])[0], x + 1)
    assert len(calls) == 2
    assert not cut.exists()
    path = elsewhere
    with pytest.raises(Unrecordable, match=r"the compiler failed: RuntimeError: ctypes: .*file too short"):
        Program(graph, [x])
    assert len(calls) == 3
    assert elsewhere.exists()
