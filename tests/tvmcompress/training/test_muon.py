"""Steps along orthogonal matrices, against singular value decompositions and PyTorch's Adam."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from tvmcompress import Model, finetune
from tvmcompress.training.muon import Muon, is_matrix, orthogonal


def muon(weight: torch.Tensor, rate: float = 0.1, **options: float) -> Muon:
    return Muon([{"params": [weight], "lr": rate}], **options)


def filled(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (7, 7)])
def test_singular_vectors_stay_and_singular_values_become_one(shape: tuple[int, int]) -> None:
    matrix = filled(*shape)
    u, values, v = np.linalg.svd(matrix.numpy(), full_matrices=False)
    # Far from each other, as those of gradients are.
    matrix = torch.from_numpy(u @ np.diag(values * np.linspace(1, 0.1, len(values), dtype=np.float32)) @ v)
    inside = u.T @ orthogonal(matrix).numpy() @ v.T
    assert np.abs(inside - np.diag(np.diag(inside))).max() < 1e-3
    assert np.diag(inside).min() > 0.6
    assert np.diag(inside).max() < 1.3
    assert orthogonal(torch.zeros(shape)).abs().max() == 0


@pytest.mark.parametrize("shape", [(4, 6, 3, 3), (30, 2, 1, 1), (5, 8)])
def test_a_step_is_as_large_as_the_rate_says_whatever_the_gradient(shape: tuple[int, ...]) -> None:
    steps = []
    for scale in (1e-4, 1e3):
        weight = torch.zeros(shape, requires_grad=True)
        weight.grad = filled(*shape, seed=1) * scale
        muon(weight, 0.1).step()
        steps.append(weight.detach())
    torch.testing.assert_close(steps[0], steps[1])
    gradient = filled(*shape, seed=1)
    assert 0.2 * 0.1 < steps[0].square().mean().sqrt() < 0.4 * 0.1
    assert (steps[0] * gradient).sum() < 0


def test_momentum_is_followed_beyond_the_last_gradient() -> None:
    weight = torch.zeros((3, 5), requires_grad=True)
    first, second = filled(3, 5, seed=1), filled(3, 5, seed=2)
    optimizer = muon(weight, 0.1, momentum=0.75)
    weight.grad = first.clone()
    optimizer.step()
    before = weight.detach().clone()
    weight.grad = second.clone()
    optimizer.step()
    mean = 0.75 * 0.25 * first + 0.25 * second
    wanted = orthogonal(0.25 * second + 0.75 * mean)
    torch.testing.assert_close(weight.detach() - before, -0.1 * 0.3 * 5**0.5 * wanted)


@pytest.mark.parametrize("shape", [(7,), (1, 7, 1, 1), (7, 1, 3, 3)])
def test_what_is_no_matrix_is_changed_as_adam_does(shape: tuple[int, ...]) -> None:
    ours, theirs = (filled(*shape).requires_grad_() for _ in range(2))
    assert not is_matrix(ours)
    pairs = (
        (ours, muon(ours, 0.1, momentum=0.8, weight_decay=0.2)),
        (theirs, torch.optim.AdamW([theirs], lr=0.1, betas=(0.8, 0.999), weight_decay=0.2)),
    )
    for seed in range(3):
        for weight, optimizer in pairs:
            weight.grad = filled(*shape, seed=10 + seed)
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_weights_are_pulled_to_zero_apart_from_their_gradient() -> None:
    weight = filled(3, 5).requires_grad_()
    weight.grad = torch.zeros(3, 5)
    before = weight.detach().clone()
    muon(weight, 0.1, weight_decay=0.5).step()
    torch.testing.assert_close(weight.detach(), before * 0.95)


def test_it_trains_and_goes_on_where_it_was_stopped(digits: Path, digits_model: Model, tmp_path: Path) -> None:
    data = np.load(digits / "digits_calib.npz")
    x = data[data.files[0]][:64].astype(np.float32)
    rng = np.random.default_rng(0)
    noise = {name: rng.uniform(0.7, 1.3, value.shape).astype(value.dtype) for name, value in digits_model.params.items()}
    begun = digits_model.with_params({name: value * noise[name] for name, value in digits_model.params.items()})
    options = {"teacher": digits_model, "optimizer": "muon", "learning_rate": 0.02, "epochs": 6, "batch_size": 8}
    whole = finetune(begun, x, **options)

    def error(model: Model) -> float:
        return float(np.square(model.run(x)[0] - digits_model.run(x)[0]).mean())

    assert error(whole) < 0.5 * error(begun)

    class StoppedError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        finetune(begun, x, checkpoint=tmp_path, on_progress=stop, **options)
    again = finetune(begun, x, checkpoint=tmp_path, **options)
    for name, value in whole.params.items():
        np.testing.assert_allclose(again.params[name], value, rtol=1e-4, atol=1e-5)
