"""Hyper-parameters behind the name of a prior, a guide or a likelihood: ``student-t:df=3:scale=0.5``."""

import re

import pytest
import torch
from test_cli import desk, pyrovae, read, trained  # noqa: F401  # fixtures
from torch import nn

import pyrovae as pv


def values(part):
    """The value of each hyper-parameter, and whether it is learned."""
    return {
        name: (constrained().detach().unique().tolist(), any(True for _ in constrained.parameters()))
        for name, constrained in part.named_children()
        if not isinstance(constrained, (nn.Linear, pv.nn.MLP))
    }


def test_values_reach_the_parts():
    vae = pv.build_vae(
        (6,),
        4,
        prior="spike-slab:active=0.25:slab=student-t:df=5:scale=2",
        guide="spike-slab:slab=laplace",
        likelihood="normal:scale=0.5",
    )
    assert vae.prior.slab == "student-t"
    assert values(vae.prior) == {
        "loc": ([0.0], False),
        "scale": ([2.0], False),
        "active": ([0.25], False),
        "df": ([5.0], False),
    }
    assert vae.posterior.slab == "laplace"
    assert values(vae.likelihood) == {"scale": ([0.5], False)}
    assert vae.config["prior"] == "spike-slab:active=0.25:slab=student-t:df=5:scale=2"
    assert pv.build_vae((6,), 4, likelihood="normal:scale=per-pixel").likelihood.scale().shape == (6,)


@pytest.mark.parametrize(
    ("prior", "learned"),
    [
        ("spike-slab", {"active", "scale"}),
        ("spike-slab:active=0.25", {"scale"}),
        ("spike-slab:active=0.25:learned=active", {"active"}),
        ("spike-slab:active=0.25:learned=active+loc", {"active", "loc"}),
        ("spike-slab:learned=()", set()),
        ("spike-slab:learned=['loc']", {"loc"}),
        ("student-t:learned=df", {"df"}),
        ("beta-spike-slab:concentration1=2", {"scale"}),
    ],
)
def test_what_is_given_is_fixed_unless_it_is_said_to_be_learned(prior, learned):
    vae = pv.build_vae((6,), 4, prior=prior, num_data=9)
    assert {name for name, (_, is_learned) in values(vae.prior).items() if is_learned} == learned


def test_components_and_classes_may_be_given_either_way(tmp_path):
    x = torch.rand(30, 6)
    for prior in ("mixture:num_components=3", "vamp:num_components=3"):
        vae = pv.build_vae((6,), 4, prior=prior, inputs=x)
        assert vae.prior.logits.shape == (3,)
        pv.save(vae, tmp_path)
        assert pv.load(tmp_path).state_dict().keys() == vae.state_dict().keys()
        assert pv.load(tmp_path).config == vae.config
    vae = pv.build_vae((6,), 4, likelihood="categorical:num_classes=3")
    assert vae.sample(5).max() <= 2


BAD = {
    "spike-slab:activ=0.1": "prior 'spike-slab' has no option 'activ': its options are active, slab, loc, scale, df, "
    "concentration, num_active, learned",
    "spike-slab:active=1.5": "active must be between 0 and 1, got 1.5",
    "spike-slab:slab=cauchy": "slab must be one of normal, laplace, student-t, truncated-normal, half-normal, "
    "exponential, gamma, got 'cauchy'",
    "spike-slab:active=few": "prior 'spike-slab' cannot be made: TypeError: ",
    "spike-slab:learned=width": "learned must be a collection of names of ['active', 'loc', 'scale'], got ('width',)",
    "spike-slab:dim=3": "prior 'spike-slab' has no option 'dim'",
    "spike-slab:0.1": "must be name:option=value, each option once, got '0.1'",
    "spike-slab:active=": "must be name:option=value, each option once, got 'active='",
    "student-t:df=3:df=4": "must be name:option=value, each option once, got 'df=4'",
    "hyperspherical-uniform:scale=2": "prior 'hyperspherical-uniform' has no option 'scale': it has none",
    "vamp:bounds=(0,1)": "prior 'vamp' has no option 'bounds': its options are num_components",
    "spike-slap:active=0.1": "unknown prior 'spike-slap': did you mean 'spike-slab'?",
    "mymodule.MyPrior:scale=2": "prior 'mymodule.MyPrior' has no option 'scale': it has none",
}


@pytest.mark.parametrize(("prior", "message"), BAD.items())
def test_bad_options_are_one_line_that_lists_the_good_ones(prior, message, desk, capsys):  # noqa: F811
    assert pyrovae(f"fit real.csv --prior {prior} --out out") == 2
    assert re.search(f"^pyrovae: error: .*{re.escape(message)}", capsys.readouterr().err)
    assert not (desk / "out").exists()


def test_fit_and_compare_take_them(desk, capsys, monkeypatch):  # noqa: F811
    tiny = "--epochs 1 --hidden 8 --latent-dim 2 --num-samples 5"
    prior = "student-t:df=4:scale=0.5"
    assert pyrovae(f"fit real.csv {tiny} --prior {prior} --likelihood normal:scale=0.5 --out out") == 0
    assert f"VAE: {prior} prior" in capsys.readouterr().out
    assert read(desk / "out/config.json")["model"]["prior"] == prior
    assert values(pv.load(desk / "out").prior)["df"] == ([4.0], False)
    assert pyrovae("evaluate out --num-samples 5") == 0
    monkeypatch.setattr(pv.runs, "write_figures", lambda *args: None)
    priors = "spike-slab:active=0.1,spike-slab:active=0.3,normal"
    assert pyrovae(f"compare real.csv {tiny} --prior {priors} --out compared") == 0
    rows = read(desk / "compared/table.json")
    assert [row["prior"] for row in rows] == priors.split(",")
    assert [row["run"] for row in rows] == ["spike-slab_active-0.1", "spike-slab_active-0.3", "normal"]
    assert values(pv.load(desk / "compared/spike-slab_active-0.3").prior)["active"] == (pytest.approx([0.3]), False)
    capsys.readouterr()
    assert pyrovae("evaluate compared") == 2
    error = capsys.readouterr().err
    assert "'compared' is a comparison: choose one of its runs, normal, spike-slab_active-0.1, spike-" in error
