"""Texts as rows of whole numbers, and back."""

import pytest
import torch

import pyrovae as pv
from pyrovae.data import Vocabulary

TEXT = "the quick brown fox jumps over the lazy dog; " * 4


def rows(data):
    return torch.cat([data.train, data.val, data.test])


def test_a_text_is_cut_into_windows_that_read_as_it_does():
    data = pv.data.text(TEXT, length=9)
    assert data.vocabulary.characters == "".join(sorted(set(TEXT)))
    assert (data.event_shape, data.train.dtype) == ((9,), torch.int64)
    assert [len(part) for part in (data.train, data.val, data.test)] == [16, 2, 2]
    assert sorted(data.vocabulary.decode(rows(data))) == sorted(TEXT[i : i + 9] for i in range(0, 180, 9))
    assert len(rows(pv.data.text(TEXT, length=7))) == 180 // 7
    again, other = pv.data.text(TEXT, 9), pv.data.text(TEXT, 9, seed=1)
    assert torch.equal(again.train, data.train)
    assert not torch.equal(other.train, data.train)


def test_a_file_is_read_in_utf8(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("Übung – " * 10, encoding="utf-8")
    data = pv.data.text(path, length=8)
    assert set(data.vocabulary.decode(rows(data))) == {"Übung – "}
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"text: text.txt is not in UTF-8"):
        pv.data.text(path, length=8)


def test_lines_end_and_are_filled_up():
    lines = ["one", "two", "three", "seventeen"]
    data = pv.data.text(lines)
    assert data.event_shape == (10,)
    assert sorted(data.vocabulary.decode(rows(data))) == sorted(line.ljust(10, "\n") for line in lines)
    assert pv.data.text(lines, length=20).event_shape == (20,)


def test_numbers_of_any_dtype_are_read_back():
    vocabulary = Vocabulary("xyz")
    x = torch.tensor([[2, 0], [1, 1]])
    for dtype in (torch.float32, torch.uint8, torch.int64):
        assert vocabulary.decode(x.to(dtype)) == ["zx", "yy"]
    assert torch.equal(vocabulary.encode("zxyy").reshape(2, 2), x)
    assert len(vocabulary) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: pv.data.text("abcabcabXabc", 3, vocabulary="abc"),
            "text: the character 'X' at position 8 is not in the vocabulary of 3 characters",
        ),
        (
            lambda: pv.data.text(["ab", "ba", "aXb"], vocabulary="ab\n"),
            "text, line 2: the character 'X' at position 1 is not in the vocabulary of 3 characters",
        ),
        (lambda: pv.data.text("abcabc"), "length must be given with a text"),
        (lambda: pv.data.text("abcabc", 0), "length must be at least 1, got 0"),
        (lambda: pv.data.text("abcabc", 3), "6 characters are fewer than three windows of length 3"),
        (lambda: pv.data.text("", 3), "0 characters are fewer than three windows of length 3"),
        (lambda: pv.data.text(["ab", "abc"], 3), "line 1 has 3 characters and no room for its end, where length is 3"),
        (lambda: pv.data.text(["ab", "a\nb"]), "line 1 has an end within"),
        (lambda: pv.data.text([]), "data: text must have rows and columns"),
        (lambda: Vocabulary("abca"), "vocabulary must hold each character once, got 'a'"),
        (
            lambda: pv.data.text("abcabcabc", length=2, vocabulary=["a", "b", "c"]),
            r"vocabulary must be one string of its characters, got \['a', 'b', 'c'\]",
        ),
        (lambda: Vocabulary(""), "vocabulary must hold each character once, got none"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_text_trains_and_is_read_back():
    torch.manual_seed(0)
    data = pv.data.text(TEXT * 3, length=9)
    vae = pv.build_vae(
        data.event_shape, 2, likelihood="autoregressive", network="gru", num_classes=len(data.vocabulary), hidden=(8,)
    )
    history = pv.fit(vae, data, epochs=3, seed=0, progress=False)
    assert history["train_loss"][-1] < history["train_loss"][0]
    drawn = data.vocabulary.decode(vae.sample(3))
    assert [len(each) for each in drawn] == [9, 9, 9]
    assert set("".join(drawn)) <= set(TEXT)
