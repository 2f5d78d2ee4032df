"""Where to compute."""

from __future__ import annotations

import pytest
import torch

from sthggep._device import resolve_device


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_the_fastest_there_is(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert resolve_device() == torch.device(expected)


def test_cpu_stays_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("cpu") == torch.device("cpu")


# "meta" is a device to torch, but nothing comes back from it
@pytest.mark.parametrize("device", ["tpu9", "cuda:97", "meta", ""])
def test_devices_that_cannot_be_used(device):
    with pytest.raises(ValueError, match=rf"Device '{device}' cannot be used here.*`device='auto'` or 'cpu'"):
        resolve_device(device)
