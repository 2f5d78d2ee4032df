"""Where to compute, and in which precision."""

from __future__ import annotations

import pytest
import torch

from sthggep import _device
from sthggep._device import faster_in_bf16, resolve_device


@pytest.fixture(autouse=True)
def _measured_anew():
    faster_in_bf16.cache_clear()
    yield
    faster_in_bf16.cache_clear()


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


@pytest.mark.parametrize(("bf16", "float32", "expected"), [(1.0, 3.0, True), (1.0, 1.4, False), (3.0, 1.0, False)])
def test_bf16_must_be_clearly_faster(monkeypatch, bf16, float32, expected):
    seconds = {torch.bfloat16: bf16, torch.float32: float32}
    monkeypatch.setattr(_device, "_seconds", seconds.__getitem__)
    assert faster_in_bf16(torch.device("cpu")) is expected


def test_speed_is_measured_once(monkeypatch):
    """A busy moment later must not change the precision, hence the model."""
    monkeypatch.setattr(_device, "_seconds", {torch.bfloat16: 1.0, torch.float32: 3.0}.__getitem__)
    assert faster_in_bf16(torch.device("cpu"))
    monkeypatch.setattr(_device, "_seconds", {torch.bfloat16: 3.0, torch.float32: 1.0}.__getitem__)
    assert faster_in_bf16(torch.device("cpu"))


def test_bf16_elsewhere(monkeypatch):
    assert not faster_in_bf16(torch.device("mps"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert faster_in_bf16(torch.device("cuda"))


def test_the_clock_gives_seconds():
    assert 0 < _device._seconds(torch.float32, size=32) < 1
