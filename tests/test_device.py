"""The device to compute on."""

from __future__ import annotations

import pytest
import torch

from sthggep._device import resolve_device


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_the_fastest_device(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert resolve_device() == torch.device(expected)


def test_cpu_is_used_on_request_beside_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("cuda", "mps", "name", "expected"),
    [(True, True, "gpu", "cuda"), (False, True, "gpu", "mps"), (True, False, "GPU", "cuda"), (True, False, "gpu:1", "cuda:1")],
)  # fmt: skip
def test_gpu_is_whatever_gpu_there_is(monkeypatch, cuda, mps, name, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch, "zeros", lambda *_, device: torch.ones(1))
    assert resolve_device(name) == torch.device(expected)


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(
        ValueError, match=r"Device 'gpu' cannot be used here: torch sees no GPU.*`device='auto'` or `device='cpu'`"
    ):
        resolve_device("gpu")


# "meta" is a device of torch that holds no values
@pytest.mark.parametrize("device", ["tpu9", "cuda:97", "meta", ""])
def test_devices_that_cannot_be_used(device):
    with pytest.raises(ValueError, match=rf"Device '{device}' cannot be used here.*`device='auto'` or `device='cpu'`"):
        resolve_device(device)
