"""transformers models on our attention, against their own eager attention; what cannot be honoured is refused by name."""

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from hetsp_ext.errors import InvalidArgument  # noqa: E402
from hetsp_ext.integrations import transformers as integration  # noqa: E402

SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}
MODELS = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM, {}),
    "mistral, window": (transformers.MistralConfig, transformers.MistralForCausalLM, {"sliding_window": 5}),
    "gemma2, window and softcap": (
        transformers.Gemma2Config,
        transformers.Gemma2ForCausalLM,
        {"sliding_window": 6, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 8},
    ),
    "gpt-oss, window and sink": (
        transformers.GptOssConfig,
        transformers.GptOssForCausalLM,
        {"sliding_window": 4, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
}


@pytest.fixture(autouse=True, scope="module")
def registered() -> None:
    integration.register()
    integration.register()  # a second time changes nothing


def pair(name: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The same weights with eager attention and with ours."""
    config_class, model_class, extra = MODELS[name]
    models = []
    for attention in ("eager", "hetsp"):
        torch.manual_seed(3)
        config = config_class(**SIZES, **extra)
        model = model_class._from_config(config, attn_implementation=attention).float()
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("sinks"):
                torch.nn.init.normal_(parameter)
        models.append(model.train())
    models[1].load_state_dict(models[0].state_dict())
    return models[0], models[1]


def assert_same_gradients(reference: torch.nn.Module, model: torch.nn.Module) -> None:
    others = dict(reference.named_parameters())
    compared = 0
    for name, parameter in model.named_parameters():
        wanted = others[name].grad
        if wanted is None:
            assert parameter.grad is None, name
            continue
        difference = (parameter.grad - wanted).double().norm() / wanted.double().norm().clamp_min(1e-30)
        assert difference < 1e-4, f"{name}: {difference}"
        compared += 1
    assert compared > 10


@pytest.mark.parametrize("name", MODELS)
def test_plain_batch_equals_eager(name: str) -> None:
    reference, model = pair(name)
    ids = torch.randint(1, 61, (2, 17), generator=torch.Generator().manual_seed(0))
    expected = reference(ids, labels=ids, use_cache=False)
    found = model(ids, labels=ids, use_cache=False)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
    expected.loss.backward()
    found.loss.backward()
    assert_same_gradients(reference, model)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("boundaries", ["cu_seq_lens", "position_ids"])
def test_packed_batch_equals_documents_apart(name: str, boundaries: str) -> None:
    reference, model = pair(name)
    lengths = [1, 9, 13]
    documents = [torch.randint(1, 61, (1, n), generator=torch.Generator().manual_seed(n)) for n in lengths]
    apart = torch.cat([reference(document, use_cache=False).logits for document in documents], dim=1)
    packing = {"position_ids": torch.cat([torch.arange(n) for n in lengths])[None]}
    if boundaries == "cu_seq_lens":
        cu = torch.tensor([0, 1, 10, 23], dtype=torch.int32)
        packing |= {"cu_seq_lens_q": cu, "cu_seq_lens_k": cu, "max_length_q": 13, "max_length_k": 13}
    packed = model(torch.cat(documents, dim=1), use_cache=False, **packing).logits
    torch.testing.assert_close(packed, apart, rtol=1e-4, atol=1e-5)
    apart.square().sum().backward()
    packed.square().sum().backward()
    assert_same_gradients(reference, model)


@pytest.mark.parametrize("name", ["llama", "gpt-oss, window and sink"])
def test_generation_equals_eager(name: str) -> None:
    reference, model = (each.eval() for each in pair(name))
    ids = torch.randint(1, 61, (2, 7), generator=torch.Generator().manual_seed(1))
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "attention_mask": torch.ones_like(ids)}
    assert torch.equal(model.generate(ids, **options), reference.generate(ids, **options))


def llama(**options: object) -> torch.nn.Module:
    config = transformers.LlamaConfig(**SIZES, **options)
    return transformers.LlamaForCausalLM._from_config(config, attn_implementation="hetsp").train()


def test_no_mask_is_built_for_a_long_batch() -> None:
    assert integration.no_mask(mask_function=transformers.masking_utils.causal_mask_function) is None


IDS = torch.arange(1, 9).view(1, 8)
PADDED = torch.tensor([[0, 1, 1, 1, 1, 1, 1, 1]])
CU = torch.tensor([0, 8], dtype=torch.int32)


@pytest.mark.parametrize(
    ("options", "inputs", "message"),
    [
        ({"attention_dropout": 0.1}, {}, "dropout is 0.1"),
        ({}, {"attention_mask": PADDED}, "attention_mask hides tokens"),
        ({}, {"attention_mask": torch.zeros(1, 1, 8, 8)}, r"attention_mask of shape \(1, 1, 8, 8\)"),
        ({}, {"position_bias": torch.zeros(1)}, "position_bias is not honoured"),
        ({}, {"head_mask": torch.ones(4)}, "head_mask is not honoured"),
        ({}, {"a_mask_of_the_future": True}, "a_mask_of_the_future is not honoured"),
        ({}, {"input_ids": IDS.view(2, 4), "cu_seq_lens_q": CU}, "batch is 2"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(options: dict, inputs: dict, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        llama(**options)(**({"input_ids": IDS} | inputs), use_cache=False)


def test_window_without_causality_is_refused() -> None:
    query = torch.zeros(1, 1, 3, 4)
    with pytest.raises(InvalidArgument, match="sliding_window 2 without causal"):
        integration.attention(torch.nn.Identity(), query, query, query, None, sliding_window=2, is_causal=False)


def test_a_static_cache_is_refused() -> None:
    query, key = torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, 10, 4)
    with pytest.raises(InvalidArgument, match="keys hold 10 positions, but position_ids reach only 4"):
        integration.attention(torch.nn.Identity(), query, key, key, None, position_ids=torch.tensor([[3]]))


@pytest.mark.parametrize(
    "mask_function",
    [
        lambda utils: utils.chunked_causal_mask_function(4, torch.zeros(1, dtype=torch.long)),
        lambda utils: utils.or_masks(utils.causal_mask_function, utils.bidirectional_mask_function),
        lambda utils: utils.and_masks(utils.causal_mask_function, lambda b, h, q, k: q > k),
    ],
    ids=["chunked", "union", "of the user's own"],
)
def test_masks_beyond_ours_are_refused(mask_function) -> None:
    with pytest.raises(InvalidArgument, match="masks its attention by"):
        integration.no_mask(mask_function=mask_function(transformers.masking_utils))
