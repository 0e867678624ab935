"""Bits-back coding gives back the same bits, at the price of the negative ELBO, and says what it cannot do.

The masses of bins and the bits that symbols cost are compared with scipy's.
"""

from __future__ import annotations

import copy
import math
import re
import struct
import sys
import time
import zlib

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats as st
import torch
from constriction import stream

import pyrovae as pv
from pyrovae import cli
from pyrovae.compression import codes, compress, decompress, files
from pyrovae.distributions import Bernoulli, Logistic, SpikeSlab, Weibull

AnsCoder = stream.stack.AnsCoder
KINDS = {
    "normal": {},
    "normal, narrow guide": {"prior": "normal:scale=50.0"},
    "laplace": {"prior": "laplace"},
    "logistic": {"prior": "logistic"},
    "cauchy": {"prior": "cauchy"},
    "laplace, learned": {"prior": "laplace:learned=scale+loc", "guide": "normal"},
    "normal, generalized guide": {"guide": "generalized-normal"},
    "exponential": {"prior": "exponential"},
    "half-normal": {"prior": "half-normal", "guide": "weibull"},
    "half-normal, log-normal guide": {"prior": "half-normal", "guide": "log-normal"},
    "spike-slab": {"prior": "spike-slab:active=0.3"},
    "spike-slab, laplace": {"prior": "spike-slab:slab=laplace", "guide": "spike-slab:slab=laplace"},
    "spike-slab, never open": {"prior": "spike-slab:active=1e-6"},
    "thresholded-laplace": {"prior": "thresholded-laplace"},
    "bernoulli": {"prior": "bernoulli"},
}


@pytest.fixture(autouse=True)
def alone():
    """Pyro's parameters and torch's random state are put back after."""
    with pyro.get_param_store().scope(), torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="module")
def data():
    return pv.data.digits("static")


@pytest.fixture(scope="module")
def trained(data):
    """A VAE of each kind of code, trained for a few seconds."""
    vaes = {}
    with pyro.get_param_store().scope(), torch.random.fork_rng():
        for prior in ("normal", "laplace", "spike-slab", "bernoulli"):
            torch.manual_seed(0)
            vaes[prior] = pv.build_vae((64,), 8, prior=prior, hidden=(64,))
            pv.fit(vaes[prior], data, epochs=30, seed=0, progress=False, compile=False)
    return vaes


def tiny(event_shape=(64,), dim=5, **options):
    return pv.build_vae(event_shape, dim, **{"hidden": (16,), **options})


def random_words(num, seed=0):
    return np.random.default_rng(seed).integers(0, 2**32, num, dtype=np.uint32)


# --- the same bits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(kind, data):
    vae, x = tiny(**KINDS[kind]), data.test[:40]
    back = decompress(vae, compress(vae, x))
    assert back.dtype == x.dtype
    assert torch.equal(back, x)


@pytest.mark.parametrize("width", [1, 63, 65, 301])
def test_round_trip_of_rows_of_any_width(width):
    """Rows of x lie at other places in memory when they are compressed than when they are decompressed."""
    vae, x = tiny((width,), hidden=(37,)), torch.bernoulli(torch.full((20, width), 0.5))
    assert torch.equal(decompress(vae, compress(vae, x)), x)


@pytest.mark.parametrize("num", [1, 2, 3])
def test_round_trip_of_few_rows_and_of_one_coordinate(num, data):
    vae = tiny(dim=1)
    assert torch.equal(decompress(vae, compress(vae, data.test[:num])), data.test[:num])


def test_round_trip_of_images_through_convolutions(data):
    vae, x = tiny((1, 8, 8), network="conv", prior="spike-slab"), data.test[:10].reshape(-1, 1, 8, 8)
    assert torch.equal(decompress(vae, compress(vae, x)), x)


def test_round_trip_of_categories():
    vae, x = tiny((6,), likelihood="categorical", num_classes=5), torch.randint(0, 5, (30, 6)).float()
    assert torch.equal(decompress(vae, compress(vae, x)), x)


def test_round_trip_of_what_the_model_holds_impossible(data):
    """Every pixel has a logit of -200 or 200, and x the other value: 24 bits each, and none is lost."""
    vae, x = tiny(), data.test[:5]
    with torch.no_grad():
        last = [m for m in vae.likelihood.modules() if isinstance(m, torch.nn.Linear)][-1]
        last.weight.zero_()
        last.bias.copy_(200 - 400 * x[0])
    compressed = compress(vae, x)
    assert torch.equal(decompress(vae, compressed), x)
    assert 8 * len(compressed) > 24 * 64


def test_a_code_far_out_in_the_tail_of_the_prior_is_coded(data):
    vae, x = tiny(), data.test[:5]
    with torch.no_grad():
        vae.posterior.head.bias[:5] = 30.0
    assert torch.equal(decompress(vae, compress(vae, x)), x)


def test_the_bytes_are_the_same_each_time_and_for_a_copy(data, tmp_path):
    vae, x = tiny(prior="spike-slab"), data.test[:10]
    compressed = compress(vae, x)
    torch.manual_seed(1)
    assert compress(vae.train(), x) == compressed
    pv.save(vae, tmp_path)
    assert torch.equal(decompress(pv.load(tmp_path), compressed), x)
    assert torch.equal(decompress(copy.deepcopy(vae).double(), compressed), x.double())


def test_nothing_else_changes(data):
    vae, x = tiny(), data.test[:3]
    before, threads, state = copy.deepcopy(vae.state_dict()), torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        decompress(vae, compress(vae, x))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), state)
    assert vae.training
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    assert next(vae.parameters()).dtype == torch.float32


# --- at the price of the negative ELBO --------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", ["normal", "laplace", "spike-slab", "bernoulli"])
def test_size_is_the_negative_elbo(prior, trained, data):
    """Over 1,437 digits of some 35 bits, one draw of z each: its standard error is 0.4 %, so 3 % is seven of them.

    Fixed bits, header and first code, are 0.9 % or less of it.
    """
    vae, x = trained[prior], data.train
    bits = 8 * len(compress(vae, x))
    expected = -pv.metrics.elbo(vae, x).elbo.sum().item() / math.log(2)
    assert abs(bits / expected - 1) < 0.03


def test_each_further_row_costs_its_negative_elbo(trained, data):
    """What the rows after the first 400 add has no fixed cost; four standard errors are 2 % (false alarm 6e-5)."""
    vae, x = trained["normal"], data.train
    bits = 8 * (len(compress(vae, x)) - len(compress(vae, x[-400:])))
    expected = -pv.metrics.elbo(vae, x[:-400]).elbo.sum().item() / math.log(2)
    assert abs(bits / expected - 1) < 0.02


def test_the_first_row_takes_no_more_words_than_its_code(trained, data):
    """A spike-and-slab code of 8 coordinates takes less than the 8·16 bits of a real one."""
    sizes = {prior: len(compress(trained[prior], data.test[:1])) for prior in ("normal", "spike-slab")}
    fixed = files.HEADER.size + 4 + files.CHECKSUM.size
    assert sizes["spike-slab"] < sizes["normal"] <= fixed + 8 * 2 + 64 / 8 + 4 * 3


# --- bins and bits, against scipy -------------------------------------------------------------------------------------

LOC, SCALE = torch.tensor([-1.5, 0.0, 0.3, 4.0]).double(), torch.tensor([0.5, 1.0, 0.01, 0.2]).double()
LAWS = {
    "normal": (dist.Normal, st.norm),
    "laplace": (dist.Laplace, st.laplace),
    "logistic": (Logistic, st.logistic),
    "cauchy": (dist.Cauchy, st.cauchy),
}


def bin_mass(law, reference, symbols):
    """The mass of bins of equal mass of one law under another."""
    lower, upper = reference.ppf(symbols / 2**16), reference.ppf((symbols + 1) / 2**16)
    return np.where(lower > 0, law.sf(lower) - law.sf(upper), law.cdf(upper) - law.cdf(lower))


@pytest.mark.parametrize("prior", LAWS)
def test_a_symbol_costs_the_bits_of_its_bin(prior):
    family, scipy_family = LAWS[prior]
    code = codes.Reals(family(torch.zeros(4).double(), 2 * torch.ones(4).double()))
    q = dist.Normal(LOC[None], SCALE[None])
    coder = AnsCoder(random_words(4000))
    for _ in range(50):
        start = coder.num_valid_bits()
        symbols = code.draw(coder, q)
        drawn = start - coder.num_valid_bits()
        mass = bin_mass(st.norm(LOC.numpy(), SCALE.numpy()), scipy_family(0, 2), symbols)
        assert abs(drawn + np.log2(mass).sum()) < 1.1  # of rounding to whole bits
        code.write(coder, symbols)
        assert abs(coder.num_valid_bits() - start + drawn - 4 * 16) < 1.1
        code.undraw(coder, q, code.read(coder))
        assert abs(coder.num_valid_bits() - start) < 1


@pytest.mark.parametrize("prior", LAWS)
def test_a_symbol_stands_for_the_median_of_its_bin(prior):
    code = codes.Reals(LAWS[prior][0](LOC, SCALE))
    for symbols in (np.array([0, 1, 2**15, 2**16 - 1], np.int32), np.array([77, 30_000, 40_000, 65_000], np.int32)):
        z = code.value(symbols).numpy()[0]
        u = LAWS[prior][1](LOC.numpy(), SCALE.numpy()).cdf(z)
        np.testing.assert_allclose(u * 2**16, symbols + 0.5, rtol=1e-9)


def test_the_stack_is_what_it_was_when_all_is_undone():
    code, q = codes.Reals(dist.Normal(torch.zeros(4), torch.ones(4))), dist.Normal(LOC[None], SCALE[None])
    words = random_words(200)
    coder = AnsCoder(words, seal=True)
    drawn = [code.draw(coder, q) for _ in range(20)]
    for symbols in reversed(drawn):
        code.undraw(coder, q, symbols)
    assert np.array_equal(coder.get_compressed(unseal=True), words)


@pytest.mark.parametrize("prior", ["normal", "cauchy"])
def test_random_bits_draw_from_the_guide(prior):
    """Kolmogorov and Smirnov's test of 2,000 codes for each of four coordinates; false alarm 4e-4."""
    code = codes.Reals(LAWS[prior][0](torch.zeros(4).double(), torch.ones(4).double()))
    q = dist.Normal(LOC[None], SCALE[None])
    coder = AnsCoder(random_words(10_000, seed=1))
    z = torch.cat([code.value(code.draw(coder, q)) for _ in range(2000)]).numpy()
    for j in (0, 1, 2, *([3] if prior == "cauchy" else [])):  # at 4 a Normal's bins are wider than this guide
        assert st.kstest(z[:, j], st.norm(LOC[j].item(), SCALE[j].item()).cdf).pvalue > 1e-4


def test_random_bits_draw_gates_and_slabs():
    """The gates against their probabilities, four standard errors (false alarm 3e-4 for four), and slabs as above."""
    gate = torch.tensor([-2.0, 0.0, 1.0, 3.0]).double()
    code = codes.Spikes(
        SpikeSlab(torch.zeros(4).double(), dist.Normal(torch.zeros(4).double(), torch.ones(4).double()))
    )
    q = SpikeSlab(gate[None], dist.Normal(LOC[None] / 4, SCALE[None]))
    coder = AnsCoder(random_words(10_000, seed=2))
    z = torch.cat([code.value(code.draw(coder, q)) for _ in range(2000)])
    probs = gate.sigmoid()
    assert (((z != 0).double().mean(0) - probs).abs() < 4 * (probs * (1 - probs) / 2000).sqrt()).all()
    for j in range(4):
        slab = z[:, j][z[:, j] != 0].numpy()
        assert st.kstest(slab, st.norm(LOC[j].item() / 4, SCALE[j].item()).cdf).pvalue > 1e-4


def test_an_empty_stack_gives_symbols_and_takes_them_back():
    """Where the first code takes more words than there are: the coder pops the first bins, and pushes them again."""
    code, q = (
        codes.Reals(dist.Normal(torch.zeros(4).double(), torch.ones(4).double())),
        dist.Normal(LOC[None], SCALE[None]),
    )
    coder = AnsCoder(random_words(1), seal=True)
    drawn = [code.draw(coder, q) for _ in range(5)]
    for symbols in reversed(drawn):
        code.undraw(coder, q, symbols)
    assert np.array_equal(coder.get_compressed(unseal=True), random_words(1))


# --- what cannot be done ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": "student-t"}, "the prior's law StudentT has no icdf()"),
        ({"guide": "student-t"}, "the guide's law StudentT has no cdf()"),
        ({"guide": "delta"}, "the guide's law Delta"),
        ({"guide": "multivariate-normal"}, "the guide's law MultivariateNormal has dependent coordinates"),
        ({"prior": "mixture"}, "the prior's law MixtureSameFamily has dependent coordinates"),
        ({"prior": "spike-slab:slab=student-t"}, "the prior's law StudentT has no icdf()"),
        ({"prior": "thresholded-normal"}, "the prior's law NormalTails has no icdf()"),
        ({"prior": "rectified-normal"}, "the prior's law RectifiedNormal has no icdf()"),
        ({"prior": "poisson"}, "the prior's law Poisson has no icdf()"),
        ({"prior": "regularized-horseshoe"}, "has the sites ['z', 'z_scale']"),
        ({"prior": "relaxed-bernoulli"}, "has the sites ['z_logit']"),
        ({"prior": "beta-bernoulli", "num_data": 10}, "has sites that all data share"),
        ({"likelihood": "normal"}, "likelihood Normal cannot be compressed without loss"),
        ({"likelihood": "continuous-bernoulli"}, "likelihood ContinuousBernoulli cannot be compressed without loss"),
        ({"likelihood": "poisson"}, "likelihood Poisson cannot be compressed without loss"),
    ],
    ids=str,
)
def test_a_part_that_cannot_be_coded_is_named(options, message, data):
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        compress(tiny(**options), data.test[:2])
    assert "\n" not in str(raised.value)


def test_a_prior_that_gives_the_decoder_something_else_is_refused(data):
    class Squared(pv.priors.Normal):
        def forward(self):
            return super().forward() ** 2

    vae = pv.VAE(Squared(2), pv.likelihoods.Bernoulli(pv.nn.MLP(2, [8], 64)), pv.guides.Normal(pv.nn.MLP(64, [8]), 2))
    with pytest.raises(ValueError, match="prior Squared gives the decoder something else than its site 'z'"):
        compress(vae, data.test[:2])


@pytest.mark.parametrize("part", ["likelihood", "posterior"])
def test_networks_that_diverged_are_refused(part, data):
    vae = tiny()
    with torch.no_grad():
        next(getattr(vae, part).parameters()).fill_(math.nan)
    with pytest.raises(ValueError, match="give probabilities that are not finite"):
        compress(vae, data.test[:2])


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.rand(3, 64), "x has the value 0."),
        (torch.full((3, 64), math.nan), "x has the value nan, which is none of likelihood Bernoulli"),
        (torch.zeros(0, 64), "x must be at least one row"),
        (torch.zeros(64), "x must be at least one row"),
        (torch.zeros(3, 8, 8), "x has shape (8, 8) per datum, the likelihood (64,)"),
        (torch.zeros(3, 63), "x has shape (63,) per datum, the likelihood (64,)"),
        (torch.zeros(3, 64).double(), "x is torch.float64"),
        (np.zeros((3, 64)), "x must be a torch tensor"),
    ],
    ids=["grey", "nan", "empty", "one row", "images", "width", "dtype", "array"],
)
def test_x_that_does_not_fit_is_refused(x, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        compress(tiny(), x)


@pytest.fixture(scope="module")
def small():
    """A VAE, five rows, and the bytes of them."""
    with pyro.get_param_store().scope(), torch.random.fork_rng():
        torch.manual_seed(0)
        vae, x = tiny(), torch.bernoulli(torch.full((5, 64), 0.5))
        return vae, x, compress(vae, x)


def damaged(compressed):
    flipped = bytearray(compressed)
    flipped[40] ^= 1
    return bytes(flipped)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c[:-1], r"compressed is cut short: its header says \d+ bytes, and it has \d+"),
        (lambda c: c[:40], r"compressed is cut short: its header says \d+ bytes, and it has 40"),
        (lambda c: c[:10], "compressed is cut short: it has 10 bytes, and its header alone 22"),
        (lambda c: c[:2], "compressed is cut short: it has 2 bytes"),
        (lambda c: b"", "compressed must start with b'pvbb'"),
        (lambda c: b"\x1f\x8b" + c, "compressed must start with b'pvbb'"),
        (lambda c: c + b"\0", "compressed has more after its end"),
        (lambda c: c[:4] + b"\x09" + c[5:], "compressed has format 9, and this pyrovae reads format 1"),
        (damaged, "compressed is damaged"),
        (lambda c: "pvbb", "compressed must be bytes, got str"),
    ],
    ids=["last byte", "half", "header", "magic", "empty", "other", "longer", "version", "damaged", "text"],
)
def test_a_file_that_is_not_whole_is_one_line(change, message, small):
    vae, _, compressed = small
    with pytest.raises(ValueError, match=message) as raised:
        decompress(vae, change(compressed))
    assert "\n" not in str(raised.value)


def test_the_bits_of_header_and_checksum_are_those_of_the_docstring():
    sizes = [
        8 * len(files.pack(files.Contents((1, *(2,) * dims), np.zeros(0, np.uint32), bytes(8)))) for dims in (0, 1, 2)
    ]
    assert sizes == [208, 240, 272]
    assert f"{sizes[0]} and {sizes[1] - sizes[0]} more for each dimension" in compress.__doc__


@pytest.mark.parametrize("num", range(0, 90, 7))
def test_no_prefix_of_a_file_decompresses(num, small):
    vae, _, compressed = small
    assert num < len(compressed)
    with pytest.raises(ValueError, match="compressed"):
        decompress(vae, compressed[:num])


def test_a_file_of_another_model_is_one_line(small):
    vae, _, compressed = small
    other = copy.deepcopy(vae)
    with torch.no_grad():
        other.posterior.head.bias[0] += 1e-6
    for another in (other, tiny(prior="laplace"), tiny(dim=6)):
        with pytest.raises(ValueError, match=r"compressed is of another model, [0-9a-f]{16}, and this one is"):
            decompress(another, compressed)


def test_networks_that_give_other_numbers_are_noticed(small, monkeypatch):
    """As on a machine that rounds differently, here by much more."""
    vae, _, compressed = small
    other = copy.deepcopy(vae)
    with torch.no_grad():
        other.posterior.head.bias[0] += 1e-3
    monkeypatch.setattr(files, "fingerprint", lambda module: made_by(compressed))
    with pytest.raises(
        ValueError, match="compressed cannot be read here: the networks of its model give other numbers"
    ):
        decompress(other, compressed)


def made_by(compressed):
    return files.HEADER.unpack_from(compressed)[-1]


def test_without_constriction_the_error_says_how_to_get_it(small, monkeypatch):
    vae, x, compressed = small
    monkeypatch.setitem(sys.modules, "constriction", None)
    for call in (lambda: compress(vae, x), lambda: decompress(vae, compressed)):
        with pytest.raises(ImportError, match=r"pip install 'pyrovae\[compression\]'"):
            call()


def test_codes_without_bins_are_pushed_and_popped():
    law = Bernoulli(torch.tensor([-3.0, 0.0, 900.0]))
    coder = AnsCoder()
    codes.push(coder, law, np.array([1, 0, 0]))
    assert codes.pop(coder, law).tolist() == [1, 0, 0]


def test_bins_of_a_guide_on_the_half_line_have_all_its_mass():
    """Bins at 0 and at infinity included, at which logarithms and ratios are infinite."""
    one = torch.ones(1, 3).double()
    prior = dist.HalfNormal(torch.ones(3).double())
    for q in (Weibull(one, one), dist.Gamma(one, one), dist.LogNormal(one, one), dist.Exponential(one)):
        code = codes.Reals(prior)
        coarse = code._masses(q, code.coarse)
        assert np.isfinite(coarse).all()
        np.testing.assert_allclose(coarse.sum(1), 1.0, rtol=1e-12)
        last = code._masses(q, code._fine(np.array([0, 1, 255], np.int32)))
        np.testing.assert_allclose(last.sum(1), coarse[[0, 1, 2], [0, 1, 255]], rtol=1e-9)


# --- the command line -------------------------------------------------------------------------------------------------


def pyrovae(command, capsys):
    """Run one command in this process; its exit status and what it said."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(command.split())
    return stopped.value.code or 0, "".join(capsys.readouterr())


@pytest.fixture
def desk(tmp_path, monkeypatch, data):
    """A working folder with 20 rows in a file and two runs."""
    np.save(tmp_path / "rows.npy", data.test[:20].numpy())
    about = {"name": "rows.npy", "data_dir": None, "binarize": None, "seed": 0}
    for name, likelihood in (("run", "bernoulli"), ("real", "normal")):
        pv.save(tiny(likelihood=likelihood), tmp_path / name, data=about)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_command_line_round_trip(desk, capsys):
    status, said = pyrovae("compress run", capsys)
    size = (desk / "run/compressed.pvbb").stat().st_size
    assert (status, said) == (
        0,
        f"20 rows in {size} bytes, {8 * size / 20:.1f} bits per row: {'run/compressed.pvbb'}\n",
    )
    status, said = pyrovae("decompress run run/compressed.pvbb --out back.npy", capsys)
    assert (status, said) == (0, "20 rows of shape (64,): back.npy\n")
    assert np.array_equal(np.load("back.npy"), np.load("rows.npy"))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("compress real", "likelihood Normal cannot be compressed without loss"),
        ("compress nowhere", "there is no run in 'nowhere'"),
        ("compress run --out rows.npy", "--out 'rows.npy' exists"),
        ("decompress run rows.npy", "compressed must start with b'pvbb'"),
        ("decompress run cut.pvbb", "compressed is cut short"),
        ("decompress real whole.pvbb", "compressed is of another model"),
        ("decompress run absent.pvbb", "FILE 'absent.pvbb' must be a file that exists"),
        ("decompress run real", "FILE 'real' must be a file that exists"),
    ],
)
def test_command_line_errors_are_one_line(command, message, desk, capsys):
    whole = compress(pv.load("run"), torch.from_numpy(np.load("rows.npy")))
    (desk / "whole.pvbb").write_bytes(whole)
    (desk / "cut.pvbb").write_bytes(whole[:-30])
    status, said = pyrovae(command, capsys)
    assert status == 2
    assert said.startswith("pyrovae: error: ")
    assert message in said
    assert said.count("\n") == 1


def with_rows(compressed, rows):
    raw = bytearray(compressed)
    struct.pack_into("<I", raw, 6, rows)
    raw[-4:] = struct.pack("<I", zlib.crc32(raw[:-4]))
    return bytes(raw)


@pytest.mark.parametrize("rows", [2, 4, 200, 2**31])
def test_a_header_that_says_other_rows_ends_soon(rows):
    torch.manual_seed(0)
    vae = pv.build_vae((8,), 2, hidden=(4,))
    compressed = pv.compression.compress(vae, torch.zeros(3, 8))
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"compressed is damaged: its stack of bits|compressed cannot be read here"):
        pv.compression.decompress(vae, with_rows(compressed, rows))
    assert time.perf_counter() - start < 3
    assert len(pv.compression.decompress(vae, with_rows(compressed, 3))) == 3


def test_a_guide_that_makes_the_stack_longer_ends_too():
    """Of random bits a guide far narrower than the posterior makes more bits with each row."""
    torch.manual_seed(0)
    vae = pv.build_vae((8,), 2, hidden=(4,))
    with torch.no_grad():
        vae.posterior.head.bias[2:] = -9.0
    compressed = pv.compression.compress(vae, torch.zeros(3, 8))
    with pytest.raises(ValueError, match="compressed is damaged: its stack of bits"):
        pv.compression.decompress(vae, with_rows(compressed, 2**31))
