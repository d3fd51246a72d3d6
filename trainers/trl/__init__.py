"""Our masks, positions and rollouts in TRL's trainers (TRL 1.16).

`SFTTrainer` takes the collator `RowCollator` over `sft_dataset`; `TraceGRPOTrainer` is TRL's
`GRPOTrainer` with rollouts by the local engine (`EngineRollouts`) and a log-probability pass that
reads every trace with its own mask and positions. What a token is given is what our own trainers
give it. TRL is an optional dependency: `pip install 'nprdsl[trl]'`.
"""
