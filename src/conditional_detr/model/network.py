"""The whole network: backbone, encoder, decoder and prediction heads."""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from conditional_detr.architecture import Architecture
from conditional_detr.config import ModelSettings
from conditional_detr.model.attention import MLP
from conditional_detr.model.backbones import Backbone, family
from conditional_detr.model.decoder import ConditionalDecoder, Memory
from conditional_detr.model.detr_decoder import DETRDecoder
from conditional_detr.model.encoder import Encoder
from conditional_detr.model.position import grid_encoding, inverse_sigmoid
from conditional_detr.model.precision import full_precision
from conditional_detr.structures import Predictions


class DETR(nn.Module):
    """DETR (Carion et al., ECCV 2020): backbone, encoder, decoder, and heads that all decoder layers share.

    logits: outputs of the class head per query. softmax: classes compete, and the last logit means "no object"; otherwise
    every class has a sigmoid. class_prior: prior probability of the class head at initialization (focal loss).
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        encoder: Encoder,
        decoder: DETRDecoder | ConditionalDecoder,
        channels: int,
        logits: int,
        softmax: bool,
        class_prior: float,
        position_temperature: float,
    ) -> None:
        super().__init__()
        self.softmax = softmax
        self.position_temperature = position_temperature
        self.backbone = backbone
        self.input_proj = nn.Conv2d(backbone.channels, channels, 1)
        self.encoder = encoder
        self.decoder = decoder
        self.class_head = nn.Linear(channels, logits)
        self.box_head = MLP(channels, channels, 4, 3)

        # As published; the backbone initializes itself.
        for part in (self.encoder, self.decoder):
            for name, parameter in part.named_parameters():
                if parameter.dim() > 1 and name != "query_position.weight":
                    nn.init.xavier_uniform_(parameter)
                if name.endswith(("in_proj.bias", "out_proj.bias")):
                    nn.init.zeros_(parameter)
        self._initialize_heads(class_prior)

    def _initialize_heads(self, class_prior: float) -> None:
        if not self.softmax:
            nn.init.constant_(self.class_head.bias, -math.log((1 - class_prior) / class_prior))

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Recompute activations in the backward pass instead of storing them, which takes less memory and more time."""
        for part in (self.backbone, self.encoder, self.decoder):
            part.gradient_checkpointing = enabled

    def encode(
        self,
        pixels: Float[Tensor, "batch 3 height width"],
        padding_mask: Bool[Tensor, "batch height width"] | None = None,
    ) -> Memory:
        """Compute backbone and encoder. The mask is resized to the feature map by nearest-neighbor interpolation."""
        features = self.input_proj(self.backbone(pixels))
        if padding_mask is None:
            mask = None
            valid = torch.ones_like(features[:1, 0], dtype=torch.bool)
        else:
            mask = functional.interpolate(padding_mask[:, None].float(), size=features.shape[-2:])[:, 0].bool()
            valid = ~mask
            mask = mask.flatten(1)
        position = grid_encoding(valid, features.shape[1], self.position_temperature).to(features.dtype)
        position = position.flatten(2).transpose(1, 2)
        content = self.encoder(features.flatten(2).transpose(1, 2), position, mask)
        return Memory(content, position, mask)

    def forward(
        self,
        pixels: Float[Tensor, "batch 3 height width"],
        padding_mask: Bool[Tensor, "batch height width"] | None = None,
    ) -> Predictions:
        """Predict class logits and boxes with every decoder layer.

        pixels: RGB, ImageNet-normalized. padding_mask: True where padded; None when nothing is padded.
        """
        embeddings = self.decoder(self.encode(pixels, padding_mask))
        with full_precision(embeddings):
            embeddings = embeddings.to(self.class_head.weight.dtype)
            return Predictions(self.class_head(embeddings), self._boxes(embeddings))

    def _boxes(self, embeddings: Float[Tensor, "*batch channels"]) -> Float[Tensor, "*batch 4"]:
        return self.box_head(embeddings).sigmoid()


class ConditionalDETR(DETR):
    """Conditional DETR (Meng et al., ICCV 2021, arXiv 2108.06152).

    Boxes are predicted relative to the reference points s of the queries: b = sigmoid(FFN(f) + [s; 0; 0]) (section 3).
    """

    decoder: ConditionalDecoder

    def _initialize_heads(self, class_prior: float) -> None:
        super()._initialize_heads(class_prior)
        last = self.box_head.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def _boxes(self, embeddings: Float[Tensor, "*batch channels"]) -> Float[Tensor, "*batch 4"]:
        offset = self.box_head(embeddings)
        reference = inverse_sigmoid(self.decoder.reference_points())
        return torch.cat([offset[..., :2] + reference, offset[..., 2:]], dim=-1).sigmoid()


def build_model(settings: ModelSettings, classes: int) -> DETR:
    """Build an untrained network: ``ConditionalDETR``, or ``DETR`` with ``decoder="detr"``.

    settings: the architecture, and the prior of the class head. classes: number of categories. The caller loads weights and
    freezes stages.
    """
    settings = settings.resolved()
    return build_network(
        settings, classes, norm_frozen=settings.batch_norm == "frozen", class_prior=settings.class_prior
    )


def build_network(
    architecture: Architecture, classes: int, *, norm_frozen: bool = True, class_prior: float = 0.01
) -> DETR:
    """Build a network of this architecture with random weights.

    norm_frozen: constant batch norm in the backbone instead of trained. class_prior: as in ``DETR``.
    """
    backbone = family(architecture.backbone_family).build(architecture, norm_frozen=norm_frozen)
    layer = {
        "channels": architecture.channels,
        "heads": architecture.heads,
        "feed_forward": architecture.feed_forward,
    }
    encoder = Encoder(layers=architecture.encoder_layers, dropout=architecture.dropout, **layer)
    if architecture.decoder == "detr":
        kind = DETR
        decoder = DETRDecoder(
            layers=architecture.decoder_layers,
            dropout=architecture.dropout,
            queries=architecture.queries,
            norm_between_layers=architecture.norm_between_layers,
            **layer,
        )
    else:
        kind = ConditionalDETR
        decoder = ConditionalDecoder(
            layers=architecture.decoder_layers,
            dropout=architecture.dropout,
            queries=architecture.queries,
            temperature=architecture.position_temperature,
            norm_between_layers=architecture.norm_between_layers,
            **layer,
        )
    return kind(
        backbone=backbone,
        encoder=encoder,
        decoder=decoder,
        channels=architecture.channels,
        logits=architecture.logits(classes),
        softmax=architecture.softmax,
        class_prior=class_prior,
        position_temperature=architecture.position_temperature,
    )


class _WithoutInitialization(TorchFunctionMode):
    """Skip random initialization. On the meta device the first random number imports sympy, which takes seconds."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_) or getattr(func, "__module__", "") == "torch.nn.init":
            return None
        return func(*args, **(kwargs or {}))


def describe_network(architecture: Architecture, classes: int) -> DETR:
    """Build a network on the meta device: names and shapes of all parameters without memory, to load weights into."""
    with torch.device("meta"), _WithoutInitialization():
        return build_network(architecture, classes)
