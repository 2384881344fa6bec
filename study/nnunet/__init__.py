"""nnU-Net: plans, prepared data, batches, the trainer and its checkpoints."""
