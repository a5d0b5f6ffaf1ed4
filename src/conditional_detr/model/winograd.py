"""3x3 convolutions on a CPU with a quarter of the multiplications: F(4x4, 3x3) of Lavin and Gray (CVPR 2016).

A tile of 4x4 outputs depends on 6x6 inputs. In the transformed domain a tile takes one product per pair of channels in each
of 36 positions, instead of 9 products in each of 16. These are 36 matrix products, which torch computes as one batch. The
transforms are sums of strided views. The convolution has padding 1, stride 1 and dilation 1. float32 results differ from
those of a direct convolution by rounding, by a few times more than two direct convolutions differ from each other.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

_TILE = 4
# The paper's B^T, G and A^T (section 4.3), for one axis.
_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_WEIGHT_24 = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))  # 24 times G
_OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
_OUTPUT_TRANSPOSED = tuple(zip(*_OUTPUT, strict=True))
_CELLS = 1024  # least number of output cells, over all images
_AT_ONCE = 2**22  # most transformed inputs at once (16 MiB), so that they stay in the processor's cache


def pays(x: Tensor, weight: Tensor, *shape: Sequence[int]) -> bool:
    """Return True if this algorithm applies to a convolution and is faster. shape: stride, padding and dilation.

    With fewer channels the transforms take the time that the products save; with more channels, or on a small feature map,
    the transformed weights do. False if matrix products may be less precise than float32, because the transforms would
    amplify the error. False while compiling or exporting, because the graph would have a fixed size.
    """
    *channels, rows, columns = weight.shape
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and rows == columns == 3
        and all(tuple(each) == (1, 1) for each in shape)
        and min(channels) >= 128
        and max(channels) <= 256
        and x.shape[0] * x.shape[2] * x.shape[3] >= _CELLS
        and torch.get_float32_matmul_precision() == "highest"
        and not torch.compiler.is_compiling()
    )


def convolution(
    x: Float[Tensor, "batch inputs height width"], weight: Float[Tensor, "outputs inputs 3 3"]
) -> Float[Tensor, "batch outputs height width"]:
    """Convolve ``x`` with ``weight``, without bias."""
    batch, _, height, width = x.shape
    outputs, inputs = weight.shape[:2]
    rows, columns = _tiles(height), _tiles(width)
    kernel = _weight_transform(weight) @ weight.permute(2, 3, 0, 1).reshape(9, -1)
    kernel = kernel.view(36, outputs, inputs).transpose(1, 2)
    y = x.new_empty(batch, rows, _TILE, columns, _TILE, outputs)
    for part, of_part in _parts(x, y):
        products = torch.bmm(_transformed(part), kernel).view(6, 6, -1, rows, columns, outputs)
        half = products.new_empty(_TILE, *products.shape[1:])
        _add_up(_OUTPUT, products.unbind(0), half.unbind(0))
        _add_up(_OUTPUT, half.unbind(1), of_part.permute(4, 2, 0, 1, 3, 5).unbind(0))
    y = y.view(batch, rows * _TILE, columns * _TILE, outputs)[:, :height, :width]
    return y.permute(0, 3, 1, 2)


def input_gradient(
    gradient: Float[Tensor, "batch outputs height width"], weight: Float[Tensor, "outputs inputs 3 3"]
) -> Float[Tensor, "batch inputs height width"]:
    """Compute the gradient of ``x`` from that of the output."""
    return convolution(gradient, weight.flip(2, 3).transpose(0, 1))


def weight_gradient(
    x: Float[Tensor, "batch inputs height width"], gradient: Float[Tensor, "batch outputs height width"]
) -> Float[Tensor, "outputs inputs 3 3"]:
    """Compute the gradient of the weights from that of the output."""
    inputs, outputs = x.shape[1], gradient.shape[1]
    total = x.new_zeros(36, outputs, inputs)
    for part, of_part in _parts(x, gradient):
        total.baddbmm_(_transformed_gradient(of_part).transpose(1, 2), _transformed(part))
    kernel = _weight_transform(total).T @ total.view(36, -1)
    return kernel.view(3, 3, outputs, inputs).permute(2, 3, 0, 1)


def _weight_transform(like: Tensor) -> Float[Tensor, "36 9"]:
    """Return the weight transform of both axes as one matrix."""
    one = like.new_tensor(_WEIGHT_24) / 24
    return torch.kron(one, one)


def _tiles(length: int) -> int:
    return -(-length // _TILE)


def _parts(x: Tensor, other: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
    """Split both batches into parts of as many images as fit into ``_AT_ONCE``."""
    numbers = 36 * _tiles(x.shape[2]) * _tiles(x.shape[3]) * x.shape[1]
    images = max(1, _AT_ONCE // numbers)
    return zip(x.split(images), other.split(images), strict=True)


def _add_up(factors: Sequence[Sequence[int]], parts: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """Write the sum of ``factors[i][j] * parts[j]`` over j into ``out[i]``; every row of factors has a 1."""
    for row, total in zip(factors, out, strict=True):
        terms = [(factor, part) for factor, part in zip(row, parts, strict=True) if factor]
        (_, first), *rest = sorted(terms, key=lambda term: term[0] != 1)
        if not rest:
            total.copy_(first)
            continue
        torch.add(first, rest[0][1], alpha=rest[0][0], out=total)
        for factor, part in rest[1:]:
            total.add_(part, alpha=factor)


def _transformed(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "36 tiles channels"]:
    batch, channels, height, width = x.shape
    rows, columns = _tiles(height), _tiles(width)
    below, right = rows * _TILE - height + 1, columns * _TILE - width + 1
    padded = functional.pad(x.permute(0, 2, 3, 1), (0, 0, 1, right, 1, below))
    half = x.new_empty(6, batch, rows, padded.shape[2], channels)
    _add_up(_INPUT, [padded[:, i : i + rows * _TILE - 3 : _TILE] for i in range(6)], half.unbind(0))
    out = x.new_empty(6, 6, batch, rows, columns, channels)
    _add_up(_INPUT, [half[:, :, :, i : i + columns * _TILE - 3 : _TILE] for i in range(6)], out.unbind(1))
    return out.view(36, -1, channels)


def _transformed_gradient(gradient: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "36 tiles channels"]:
    batch, channels, height, width = gradient.shape
    rows, columns = _tiles(height), _tiles(width)
    below, right = rows * _TILE - height, columns * _TILE - width
    padded = functional.pad(gradient.permute(0, 2, 3, 1), (0, 0, 0, right, 0, below))
    tiles = padded.reshape(batch, rows, _TILE, columns, _TILE, channels)
    half = gradient.new_empty(6, batch, rows, columns, _TILE, channels)
    _add_up(_OUTPUT_TRANSPOSED, tiles.unbind(2), half.unbind(0))
    out = gradient.new_empty(6, 6, batch, rows, columns, channels)
    _add_up(_OUTPUT_TRANSPOSED, half.unbind(4), out.unbind(1))
    return out.view(36, -1, channels)
