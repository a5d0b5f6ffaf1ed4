"""Signals that end a command early."""

import signal
import time

import pytest

from conditional_detr.cli import signals


def test_what_hangs_after_an_interruption_can_be_interrupted_too(monkeypatch):
    """Several signals at once are one interruption, and a later one ends what has not finished by then."""
    now = time.monotonic()
    monkeypatch.setattr(signals.time, "monotonic", lambda: now)
    before = signal.getsignal(signal.SIGINT)
    with signals.signals_interrupt():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        now += signals.PATIENCE / 2
        signal.raise_signal(signal.SIGTERM)
        now += signals.PATIENCE
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
