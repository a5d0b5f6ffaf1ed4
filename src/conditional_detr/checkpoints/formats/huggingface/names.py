"""Parameter names in Hugging Face checkpoints.

HUB: names in files of the Hugging Face hub. MEMORY: names that transformers 5 uses in memory, and sometimes in files. Their
backbone has timm's names; HUB_NATIVE and MEMORY_NATIVE have the backbone names of transformers' own classes.
"""

from dataclasses import replace

from conditional_detr.checkpoints.names import Layout

HUB = Layout(
    name="hub",
    prefix="model.",
    modules={
        "input_proj": "model.input_projection",
        "decoder.query_position": "model.query_position_embeddings",
        "class_head": "class_labels_classifier",
        "box_head.layers.0": "bbox_predictor.layers.0",
        "box_head.layers.1": "bbox_predictor.layers.1",
        "box_head.layers.2": "bbox_predictor.layers.2",
        "decoder.norm": "model.decoder.layernorm",
    },
    encoder_layer={
        "self_attention.in_proj": "self_attn.{q,k,v}_proj",
        "self_attention.out_proj": "self_attn.out_proj",
        "feed_forward.linear1": "fc1",
        "feed_forward.linear2": "fc2",
        "norm1": "self_attn_layer_norm",
        "norm2": "final_layer_norm",
    },
    decoder_layer={
        "feed_forward.linear1": "fc1",
        "feed_forward.linear2": "fc2",
        "norm1": "self_attn_layer_norm",
        "norm2": "encoder_attn_layer_norm",
        "norm3": "final_layer_norm",
    },
    conditional={
        "self_attention.query_content": "sa_qcontent_proj",
        "self_attention.query_position": "sa_qpos_proj",
        "self_attention.key_content": "sa_kcontent_proj",
        "self_attention.key_position": "sa_kpos_proj",
        "self_attention.value": "sa_v_proj",
        "self_attention.out_proj": "self_attn.out_proj",
        "cross_attention.query_content": "ca_qcontent_proj",
        "cross_attention.query_position": "ca_qpos_proj",
        "cross_attention.query_spatial": "ca_qpos_sine_proj",
        "cross_attention.key_content": "ca_kcontent_proj",
        "cross_attention.key_position": "ca_kpos_proj",
        "cross_attention.value": "ca_v_proj",
        "cross_attention.out_proj": "encoder_attn.out_proj",
    },
    detr={
        "self_attention.in_proj": "self_attn.{q,k,v}_proj",
        "self_attention.out_proj": "self_attn.out_proj",
        "cross_attention.in_proj": "encoder_attn.{q,k,v}_proj",
        "cross_attention.out_proj": "encoder_attn.out_proj",
    },
    backbone="model.backbone.conv_encoder.model.",
    naming="timm",
)

MEMORY = Layout(
    name="memory",
    prefix="model.",
    modules={
        "input_proj": "model.input_projection",
        "decoder.query_position": "model.query_position_embeddings",
        "class_head": "class_labels_classifier",
        "box_head.layers.0": "bbox_predictor.layers.0",
        "box_head.layers.1": "bbox_predictor.layers.1",
        "box_head.layers.2": "bbox_predictor.layers.2",
        "decoder.norm": "model.decoder.layernorm",
    },
    encoder_layer={
        "self_attention.in_proj": "self_attn.{q,k,v}_proj",
        "self_attention.out_proj": "self_attn.o_proj",
        "feed_forward.linear1": "mlp.fc1",
        "feed_forward.linear2": "mlp.fc2",
        "norm1": "self_attn_layer_norm",
        "norm2": "final_layer_norm",
    },
    decoder_layer={
        "feed_forward.linear1": "mlp.fc1",
        "feed_forward.linear2": "mlp.fc2",
        "norm1": "self_attn_layer_norm",
        "norm2": "encoder_attn_layer_norm",
        "norm3": "final_layer_norm",
    },
    conditional={
        "self_attention.query_content": "self_attn.q_content_proj",
        "self_attention.query_position": "self_attn.q_pos_proj",
        "self_attention.key_content": "self_attn.k_content_proj",
        "self_attention.key_position": "self_attn.k_pos_proj",
        "self_attention.value": "self_attn.v_proj",
        "self_attention.out_proj": "self_attn.o_proj",
        "cross_attention.query_content": "encoder_attn.q_content_proj",
        "cross_attention.query_position": "encoder_attn.q_pos_proj",
        "cross_attention.query_spatial": "encoder_attn.q_pos_sine_proj",
        "cross_attention.key_content": "encoder_attn.k_content_proj",
        "cross_attention.key_position": "encoder_attn.k_pos_proj",
        "cross_attention.value": "encoder_attn.v_proj",
        "cross_attention.out_proj": "encoder_attn.o_proj",
    },
    detr={
        "self_attention.in_proj": "self_attn.{q,k,v}_proj",
        "self_attention.out_proj": "self_attn.o_proj",
        "cross_attention.in_proj": "encoder_attn.{q,k,v}_proj",
        "cross_attention.out_proj": "encoder_attn.o_proj",
    },
    backbone="model.backbone.model.",
    naming="timm",
)

HUB_NATIVE = replace(HUB, name="hub-native", naming="transformers")
MEMORY_NATIVE = replace(MEMORY, name="memory-native", naming="transformers")
LAYOUTS = (HUB, HUB_NATIVE, MEMORY, MEMORY_NATIVE)
