from __future__ import annotations

import pytest
import torch

from jetscale.model.kernels.cpu import products

MANY, SIDES = products.MANY_ROWS + 5, (64, 40)
NOT_BUILT_IN = not torch.backends.mkldnn.is_available()


@pytest.mark.skipif(NOT_BUILT_IN, reason="this torch is built without oneDNN")
def test_torch_still_has_the_private_product_that_wide_layers_call() -> None:
    operator = torch.ops.mkldnn._linear_pointwise
    assert products.has_onednn(), (
        f"torch {torch.__version__} changed its private operator to {operator.default._schema}; until "
        "jetscale/model/kernels/cpu/products.py calls it in that form, training on a CPU is right but slower"
    )
    assert products.HAS_ONEDNN


@pytest.mark.parametrize("rows", [7, MANY])
@pytest.mark.parametrize("onednn", [products.HAS_ONEDNN, False])
@pytest.mark.parametrize("sides", [SIDES, (16, 64)])
def test_every_way_gives_the_product(
    rows: int, onednn: bool, sides: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "HAS_ONEDNN", onednn)
    n_out, n_in = sides
    generator = torch.Generator().manual_seed(0)
    x_SI, weight_OI, d_out_SO = (
        torch.randn(*shape, generator=generator) for shape in ((rows, n_in), (n_out, n_in), (rows, n_out))
    )
    exact_x, exact_weight, exact_d = x_SI.double(), weight_OI.double(), d_out_SO.double()
    for found, exact in (
        (products.linear(x_SI, weight_OI), exact_x @ exact_weight.T),
        (products.input_gradient(d_out_SO, weight_OI), exact_d @ exact_weight),
        (products.weight_gradient(d_out_SO, x_SI, weight_OI), exact_d.T @ exact_x),
    ):
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=2e-6 * rows**0.5 * n_in**0.5)


def test_an_operator_of_another_form_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "ONEDNN", products.ONEDNN.replace("str? algorithm", "int algorithm"))
    assert not products.has_onednn()
