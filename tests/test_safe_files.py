"""Opening a run runs no code, and notices damage."""

from __future__ import annotations

import json
import sys

import pytest
import safetensors.torch
import torch
from mutations import Took, attempts, command_in_process, make_run, resumptions, sign

import pyrovae as pv
from pyrovae import build
from pyrovae.build.config import FORMAT, digest
from pyrovae.cli import main


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "run")
    return tmp_path / "run"


def change(run, section, signed=True, **values):
    config = json.loads((run / "config.json").read_text())
    (config if section is None else config[section]).update(values)
    if signed:
        sign(run, config)
    (run / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("part", ["prior", "likelihood", "guide", "corrupt"])
def test_a_file_runs_no_code(part, run, tmp_path, capsys):
    (tmp_path / "mine.py").write_text("open('executed', 'w').close()\ndef Part(*args): open('executed', 'w').close()\n")
    for name in ("mine.Part", "subprocess.Popen:args='touch executed':shell=True", "pyrovae.priors.Normal"):
        change(run, "model", **{part: name})
        with pytest.raises(ValueError, match=f"names {part} '{name.partition(':')[0]}', which is not of pyrovae"):
            pv.load(run)
        for command in ("sample", "evaluate", "encode"):
            with pytest.raises(SystemExit) as stop:
                main([command, "run"])
            assert stop.value.code == 2
            assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "executed").exists()


def test_what_is_trusted_is_looked_at_before_it_is_called(run, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "called.py").write_text("class Part:\n    def __init__(self, *args):\n        open('executed', 'w')\n")
    change(run, "model", prior="called.Part")
    with pytest.raises(ValueError, match=r"prior 'called.Part' must be a class of torch modules"):
        pv.load(run, trust=True)
    assert not (tmp_path / "executed").exists()


class Mine(pv.priors.Laplace):
    pass


@pytest.mark.parametrize("trust", [True, [__name__], [__name__.partition(".")[0]], [Mine]])
def test_a_part_of_ones_own_is_loaded_where_it_is_trusted(trust, tmp_path):
    vae = pv.build_vae((4,), 2, prior=f"{__name__}.Mine:scale=0.5", hidden=(3,))
    pv.save(vae, tmp_path)
    assert isinstance(pv.load(tmp_path, trust=trust).prior, Mine)
    for other in (False, [], ["os"], [pv.VAE], [f"{__name__}x"]):
        with pytest.raises(ValueError, match="which is not of pyrovae"):
            pv.load(tmp_path, trust=other)


@pytest.mark.parametrize("place", [3, 100, -1])
def test_one_bit_of_the_weights_is_noticed(place, run):
    path = run / "model.safetensors"
    raw = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little") if place >= 0 else 0
    raw[start + place] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"is damaged: model\.safetensors and the sections"):
        pv.load(run)


def test_weights_of_another_dtype_are_refused_by_name(run):
    tensors = safetensors.torch.load_file(run / "model.safetensors")
    name = next(iter(tensors))
    tensors[name] = tensors[name].view(torch.int32)
    safetensors.torch.save_file(tensors, run / "model.safetensors")
    with pytest.raises(ValueError, match=f"of another model: {name} is torch.int32, not torch.float32"):
        pv.load(run)


def test_the_hash_is_that_of_names_dtypes_shapes_bytes_and_config(run):
    config = json.loads((run / "config.json").read_text())
    tensors = safetensors.torch.load_file(run / "model.safetensors")
    assert config["sha256"] == digest(config, tensors)
    one, other = [name for name, t in tensors.items() if t.dim() == 1 and t.numel() == 3][:2]
    changed = [
        {**tensors, one: tensors[other], other: tensors[one] + 1},
        {**tensors, one: tensors[one].reshape(3, 1)},
        {**tensors, one: tensors[one].double()},
        {("x" + name if name == one else name): t for name, t in tensors.items()},
    ]
    assert len({config["sha256"], *(digest(config, each) for each in changed)}) == 5
    moved = {**config, "data": {**config["data"], "name": "elsewhere.csv", "data_dir": "/data"}}
    assert digest(moved, tensors) == config["sha256"], "data may move"


def test_a_newer_format_is_refused_and_half_a_header_is_damage(run):
    change(run, None, format=FORMAT + 1)
    with pytest.raises(ValueError, match="has format 2, and this pyrovae reads format 1: update pyrovae"):
        pv.load(run)
    config = json.loads((run / "config.json").read_text())
    for gone in ("format", "sha256"):
        (run / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != gone}))
        with pytest.raises(ValueError, match=f"is damaged: it lacks '{gone}'"):
            pv.load(run)


@pytest.mark.parametrize(
    ("scales", "said"),
    [
        ({"loc": [1.0], "scale": [1.0]}, "loc must have 4 numbers, got 1"),
        ({"loc": [0.0] * 4, "scale": [0.0] * 4}, "scale must be positive finite numbers"),
        ({"loc": [0.0] * 4, "scale": [1, 1, 1, -1]}, "scale must be positive finite numbers"),
        ({"loc": [0.0] * 4}, "standardization lacks 'scale'"),
        ("x", "standardization must be a dictionary, or None, got 'x'"),
        ({}, "standardization lacks 'loc'"),
        ({"loc": [0.0, 0.0, 0.0, "1"], "scale": [1.0] * 4}, "loc must be finite numbers"),
    ],
)
def test_a_standardisation_is_not_taken_on_trust(scales, said, run, capsys):
    change(run, "data", standardization=scales)
    with pytest.raises(SystemExit) as stop:
        main(["sample", "run"])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert said in error
    assert "config.json" in error
    assert len(error.splitlines()) == 1


def test_a_single_number_of_any_stride_and_dtype_is_hashed(tmp_path):
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        vae = pv.build_vae((1,), 1, likelihood="normal", hidden=(1,)).to(dtype)
        vae.posterior.head.bias.data = torch.ones((), dtype=dtype).expand(vae.posterior.head.bias.shape)
        vae.prior.loc.value = torch.zeros((), dtype=dtype).expand(1)
        pv.save(vae, tmp_path)
        loaded = pv.load(tmp_path)
        assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in vae.state_dict().items())


OPTIONS = [
    *({"prior": prior} for prior in build.PRIORS if prior != "fan"),
    {"prior": "fan:rays=10", "latent_dim": 20},
    *({"likelihood": name} for name in build.LIKELIHOODS if name not in ("categorical", "autoregressive")),
    *({"likelihood": name, "network": "gru", "num_classes": 3} for name in ("categorical", "autoregressive")),
    {"missing": True, "corrupt": "masking:prob=0.3"},
    {"num_labels": 3, "norm": "batch", "dropout": 0.1},
    {"network": "dictionary"},
    {"event_shape": (1, 8, 8), "network": "conv", "residual": 1, "norm": "group"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_model_is_compared_before_memory_is_taken(options, tmp_path):
    rows = torch.rand(60, 4) if options.get("prior") == "vamp" else None
    vae = pv.build_vae(
        **{"event_shape": (4,), "latent_dim": 2, "hidden": (3,), "num_data": 9, "inputs": rows, **options}
    )
    pv.save(vae, tmp_path)
    loaded = pv.load(tmp_path)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in vae.state_dict().items())
    config = json.loads((tmp_path / "config.json").read_text())
    config["model"]["latent_dim"] = 10**8  # 300 million weights and more
    sign(tmp_path, config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="is of another model"):
        pv.load(tmp_path)


def test_sections_are_finite_json(tmp_path):
    vae = pv.build_vae((4,), 2, hidden=(3,))
    for section in (float("nan"), {"a": float("inf")}, {1, 2}):
        with pytest.raises(ValueError, match="sections must be JSON values with finite numbers"):
            pv.save(vae, tmp_path / "out", note=section)
    with pytest.raises(ValueError, match="sections: 'format' is written by save itself"):
        pv.save(vae, tmp_path / "out", format=3)
    assert not (tmp_path / "out").exists()


def test_damaged_runs_are_refused_run_no_code_and_give_no_other_numbers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    bad = [f"{done}: {result}" for done, result in attempts(150, 0, tmp_path) if result not in ("refused", "harmless")]
    assert bad == []
    assert not (tmp_path / "executed").exists()
    assert "canary" not in sys.modules


def test_damaged_checkpoints_are_refused_in_one_line_and_stay(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(command):
        capsys.readouterr()
        return Took(command_in_process(command), capsys.readouterr().err)

    fine = ("refused", "harmless", "forged")
    bad = [f"{done}: {result}" for done, result in resumptions(80, 0, tmp_path, run) if result not in fine]
    assert bad == []
    assert not any(tmp_path.rglob("executed"))
