"""Numbers that others published. Read off figures within 2 % where marked so; nothing here is computed."""

# FlexSP (ASPLOS'25, arXiv 2412.01523), main figure, read off: seconds of an iteration of 512 sequences on 64 A100-40G; of
# DeepSpeed (static), Megatron-LM, FlexSP-BatchAda (adaptive), FlexSP; then the printed ratio of DeepSpeed over FlexSP.
# (model, context in K tokens, data) -> values. Where the figure allows a range its middle is given.
FLEXSP = {
    ("7b", 192, "github"): (28.5, 28.0, 26.4, 19.6, 1.45),
    ("7b", 192, "commoncrawl"): (24.0, 26.6, 21.9, 16.1, 1.50),
    ("7b", 192, "wikipedia"): (8.1, 9.3, 5.85, 4.6, 1.72),
    ("13b", 192, "github"): (47.6, 46.9, 43.9, 33.9, 1.40),
    ("13b", 192, "commoncrawl"): (39.8, 45.4, 36.9, 29.1, 1.35),
    ("13b", 192, "wikipedia"): (13.9, 15.4, 10.4, 8.7, 1.59),
    ("30b", 192, "github"): (119.0, 119.0, 113.0, 83.0, 1.44),
    ("30b", 192, "commoncrawl"): (109.0, 111.0, 99.5, 71.0, 1.54),
    ("30b", 192, "wikipedia"): (30.5, 34.6, 23.4, 17.6, 1.64),
    ("7b", 384, "github"): (32.3, 37.4, 31.3, 25.7, 1.26),
    ("7b", 384, "commoncrawl"): (26.9, 33.4, 25.7, 18.9, 1.42),
    ("7b", 384, "wikipedia"): (8.3, 10.0, 6.2, 5.5, 1.46),
    ("13b", 384, "github"): (53.9, 67.6, 50.5, 41.7, 1.29),
    ("13b", 384, "commoncrawl"): (52.4, 65.4, 49.5, 38.3, 1.37),
    ("13b", 384, "wikipedia"): (14.6, 18.3, 12.1, 10.2, 1.43),
    ("30b", 384, "github"): (133.0, 152.0, 130.0, 109.0, 1.22),
    ("30b", 384, "commoncrawl"): (116.0, 140.0, 111.0, 88.0, 1.33),
    ("30b", 384, "wikipedia"): (32.7, 39.4, 27.4, 21.3, 1.53),
}

# ByteScale (SIGCOMM'25, arXiv 2502.21231): LLaMA 7B, context 2M, data "Byted", 1024 GPUs, 32M tokens a step.
BYTESCALE_LADDER = {"+ dynamic communication": 1.59, "+ selective offloading": 2.01, "+ balance": 3.69, "+ remote loader": 3.89}
BYTESCALE_SECONDS = {"static": 520.0, "naive HDP": 272.0, "balanced HDP": 157.0}  # a step
BYTESCALE_COMMUNICATION = 0.976  # of the static step
BYTESCALE_ATTENTION_MS = {39: 110.0, 256: 405.0}  # a layer of one sequence of 312K tokens on so many ranks
BYTESCALE_OFFLOAD = {0.0: (5.08, 59), 0.5: (5.08, 40), 0.6: (5.38, 37), 0.8: (5.93, 33), 1.0: (6.49, 27)}  # 64K: s, GB
# Its lengths: share of documents up to, and share of tokens in documents above.
BYTED_DOCUMENTS = ((4096, 0.80), (131072, 0.99), (2097152, 1.0))
BYTED_TOKENS_ABOVE = {131072: 0.443, 262144: 0.37, 2097152: 0.121}  # the last: in documents that reach the context
BYTED_REACHING = 0.0005  # of documents

# Zeppelin (EuroSys'26, arXiv 2509.21841): over TransformerEngine's context parallelism; ablation of the 3B model on ArXiv.
ZEPPELIN_LADDER = {"routing": 1.6, "engine and partition": 3.2, "both": 3.51, "both and remapping": 3.64}
ZEPPELIN_ROUND_MS = 2.18  # inter-node round of one 64K sequence
ZEPPELIN_ROUTED_MS = 0.411  # the transfer leg of the same round, routed
ZEPPELIN_SPEEDUP = {"mean": 2.80, "largest": 6.60}

# Megatron-Core's dynamic context parallelism (NVIDIA's developer blog, 28 January 2026): Llama 13B, 2048 sequences a step,
# 8 pipeline stages, 8 context-parallel ranks. TFLOP/s a GPU, static and dynamic.
MEGATRON = {"github": (195.88, 289.32), "commoncrawl": (139.17, 174.39)}

# Training on Frontier (arXiv 2312.12705): share of the 191.5 TFLOP/s of a GCD, and its TFLOP/s.
FRONTIER_PEAK = 191.5
FRONTIER = {"22B": (0.3838, 73.5), "175B": (0.3614, 69.2), "1T": (0.3196, 61.2)}
FRONTIER_STRONG = {"175B at 1024 GCDs": 0.89, "1T at 3072 GCDs": 0.87}
FRONTIER_WEAK = {"175B at 1024 GCDs": 1.00, "1T at 3072 GCDs": 1.00}
