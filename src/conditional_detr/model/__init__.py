"""The network, one module per part: backbones, encoder, decoders, attention and position encodings."""
